"""Where the ranges of an export without a corpus come from."""

from __future__ import annotations

from pathlib import Path

from mer_calibration import CalibrationError, Ranges
from mer_runtime.files import is_file, is_folder

#: In a bundle: what it was quantised with.
RANGES_FILE = "ranges.json"


def find_ranges(checkpoint: Path, given: str | Path | None = None) -> Ranges:
    """Read the ranges ``given``, else those that ship with a checkpoint or lie beside it.

    Beside ``best.safetensors`` that is ``best.ranges.json``.

    Raises:
        CalibrationError: there are none, or they can't be read.
    """
    if given is not None:
        path = Path(given)
        return Ranges.read(path / RANGES_FILE if is_folder(path) else path)
    beside = ranges_file(checkpoint)
    if is_file(beside):
        return Ranges.read(beside)
    raise CalibrationError(
        f"int8 needs the ranges of {checkpoint}'s activations: give a corpus to calibrate on "
        "(--calibration CACHE, made with mer-prepare) or the ranges of an earlier export "
        "(--ranges FILE), or take --precision fp32"
    )


def ranges_file(checkpoint: Path) -> Path:
    """Where the ranges lie that belong to a checkpoint, whether they are there or not."""
    return checkpoint.with_name(f"{checkpoint.stem}.ranges.json")
