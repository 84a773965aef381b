"""The exceptions that users meet, one base class for all four packages.

    MerError
    ├── SpecError            a spec or label list that can't be honoured
    ├── MediaError           a file that can't be read as audio or video
    ├── MissingModalityError neither a face nor a voice to work with
    ├── FaceDetectorError    a detector file that can't be used
    ├── EngineError          TensorRT can't build or run an engine here
    ├── BundleError          a bundle that is missing, foreign, edited or too new
    ├── MissingExtraError    an optional package isn't installed
    └── OutputError          an output path that can't be written

    MerWarning               a degraded answer

Each message says what is wrong, where, and what to do; the command line prints it in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: OpenCV's code for that (``cv2.Error.StsNoMem``).
_NO_MEMORY = -4


class MerError(Exception):
    """Base class of every error that mer-edge raises on purpose. It can be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is: by default its class would be called with the message alone.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[MerError], args: tuple[Any, ...], state: Mapping[str, Any]) -> MerError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class MerWarning(UserWarning):
    """Something works, but not as well as it could; the command line prints it in one line."""


class SpecError(MerError, ValueError):
    """A preprocessing or model spec is malformed or contradicts itself."""


class MediaError(MerError, ValueError):
    """A clip can't be decoded."""

    def __init__(self, source: str | Path, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = str(source)
        self.reason = reason


class MissingModalityError(MerError, ValueError):
    """Neither a face nor a voice was given or found."""


class FaceDetectorError(MerError, ValueError):
    """The face detector's file is missing or not a detector."""


class BundleError(MerError, ValueError):
    """A bundle can't be loaded: missing, edited, made by something else, or too new."""

    def __init__(self, bundle: str | Path, reason: str) -> None:
        super().__init__(f"{bundle}: {reason}")
        self.bundle = str(bundle)


class MissingExtraError(MerError, ImportError):
    """A package that an optional feature needs isn't installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}: install it with "
            f"pip install 'mer-edge[{extra}]'"
        )


def lacks_memory(error: BaseException) -> bool:
    """Whether something failed for want of memory: OpenCV has an error of its own for that."""
    if isinstance(error, MemoryError):
        return True
    of_opencv = type(error).__module__ == "cv2"
    return of_opencv and (getattr(error, "code", None) == _NO_MEMORY or "bad_alloc" in str(error))


class OutputError(MerError, OSError):
    """An output can't be written."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"can't write {path}: {reason}")
        self.reason = reason
