"""From a checkpoint to a bundle that a device runs, checked against the float model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_export.errors import ExportError, GateError, OptionError
    from mer_export.exporter import export_bundle
    from mer_export.report import ExportReport

__all__ = ["ExportError", "ExportReport", "GateError", "OptionError", "export_bundle"]

_HOMES = {
    "ExportError": "errors",
    "ExportReport": "report",
    "GateError": "errors",
    "OptionError": "errors",
    "export_bundle": "exporter",
}


def __getattr__(name: str) -> Any:
    # Late, so that the command can say that torch is missing before anything imports it.
    if name in _HOMES:
        return getattr(import_module(f"mer_export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mer_export' has no attribute {name!r}")
