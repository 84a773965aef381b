"""Errors of exporting; their base is ``mer_runtime.errors.MerError``."""

from __future__ import annotations

from mer_runtime.errors import MerError
from mer_runtime.feeds import Modality


class ExportError(MerError, RuntimeError):
    """A graph can't be made, or the bundle can't be written."""


class OptionError(ExportError):
    """An option or argument is given where it would change nothing."""


class GateError(MerError, RuntimeError):
    """The engine's answers differ from the float reference's by more than is allowed.

    ``shown`` is what the clips or the golden input showed where that was seen.
    """

    def __init__(self, message: str, shown: Modality | None = None) -> None:
        super().__init__(message)
        self.shown = shown


class NonFiniteError(GateError):
    """The engine answers with something that is no number; other layers in float don't mend it."""
