"""From a checkpoint to a bundle that a device runs, checked against the float model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_export.exporter import export_bundle
    from mer_export.report import ExportReport

__all__ = ["ExportReport", "export_bundle"]


def __getattr__(name: str) -> Any:
    # Late, so that the command can say that torch is missing before anything imports it.
    if name in __all__:
        from mer_export import exporter

        return getattr(exporter, name)
    raise AttributeError(f"module 'mer_export' has no attribute {name!r}")
