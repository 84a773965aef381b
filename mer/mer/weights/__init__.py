"""The checkpoints that ship with the package; ``MODEL_CARD.md`` says what they are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mer_runtime.spec import FUSIONS, Fusion


def shipped_checkpoint(fusion: Fusion = "ia") -> Path:
    """Where the shipped checkpoint of ``fusion`` lies.

    Beside it lie the ranges of its calibration, ``FUSION.ranges.json``: int8 needs no corpus.
    """
    return Path(str(resources.files(__name__))) / f"{fusion}.safetensors"


def find_checkpoint(checkpoint: str | Path | None = None) -> Path:
    """The file for ``checkpoint``: a path, or ``ia``, ``it`` or ``lt`` for the one that ships.

    What lies in this folder under such a name comes first. None is the shipped ``ia``. Whether a
    path leads anywhere is left to ``mer.load_checkpoint``.
    """
    if checkpoint is None:
        return shipped_checkpoint()
    path = Path(checkpoint)
    if path.exists():
        return path
    return next((shipped_checkpoint(name) for name in FUSIONS if name == str(checkpoint)), path)
