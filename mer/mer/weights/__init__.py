"""The checkpoints that ship with the package; ``MODEL_CARD.md`` says what they are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mer_runtime.spec import Fusion


def shipped_checkpoint(fusion: Fusion = "ia") -> Path:
    """Where the shipped checkpoint of ``fusion`` lies.

    Beside it lie the ranges of its calibration, ``FUSION.ranges.json``: int8 needs no corpus.
    """
    return Path(str(resources.files(__name__))) / f"{fusion}.safetensors"
