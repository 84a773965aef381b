"""From a checkpoint to a bundle that a device runs, checked against the float model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mer_runtime.lazy_imports import make_getattr

if TYPE_CHECKING:
    from mer_export.errors import ExportError, GateError, OptionError
    from mer_export.exporter import export_bundle
    from mer_export.options import ExportOptions
    from mer_export.report import ExportReport

__all__ = [
    "ExportError",
    "ExportOptions",
    "ExportReport",
    "GateError",
    "OptionError",
    "export_bundle",
]

__getattr__ = make_getattr(
    __name__,
    {
        ".errors": ("ExportError", "GateError", "OptionError"),
        ".exporter": ("export_bundle",),
        ".options": ("ExportOptions",),
        ".report": ("ExportReport",),
    },
)
