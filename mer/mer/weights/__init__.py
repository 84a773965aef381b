"""The checkpoints that ship with the package; ``MODEL_CARD.md`` says what they are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mer_runtime.files import is_there
from mer_runtime.spec import Fusion

_FOLDER = Path(str(resources.files(__name__)))
#: The fusions whose checkpoints lie here, sorted.
SHIPPED: tuple[Fusion, ...] = tuple(sorted(file.stem for file in _FOLDER.glob("*.safetensors")))


def shipped_checkpoint(fusion: Fusion = "ia") -> Path:
    """Where the shipped checkpoint of ``fusion`` lies.

    Beside it lie the ranges of its calibration, ``FUSION.ranges.json``: int8 needs no corpus.
    """
    return _FOLDER / f"{fusion}.safetensors"


def find_checkpoint(checkpoint: str | Path | None = None) -> Path:
    """The file for ``checkpoint``: a path, or ``ia``, ``it`` or ``lt`` for the one that ships.

    What lies in this folder under such a name comes first. None is the shipped ``ia``. Whether a
    path leads anywhere is left to ``mer.load_checkpoint``.
    """
    if checkpoint is None:
        return shipped_checkpoint()
    path = Path(checkpoint)
    if is_there(path):
        return path
    return shipped_checkpoint(str(checkpoint)) if str(checkpoint) in SHIPPED else path
