"""From a checkpoint to a bundle that a device runs, checked against the float model."""

from mer_export.exporter import ExportReport, export_bundle

__all__ = ["ExportReport", "export_bundle"]
