"""The checkpoints that ship, in a distribution of their own: ``mer-edge-weights``.

``mer_weights/MODEL_CARD.md`` says what they are. The base install does without: a device runs
bundles, and these are what bundles are made from.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mer_runtime.bundle import SHIPPED_CHECKPOINTS
from mer_runtime.errors import MissingExtraError
from mer_runtime.files import is_there
from mer_runtime.spec import Fusion

#: The paper's fusions. Each has a checkpoint of its name, of the paper's network.
PAPER: tuple[Fusion, ...] = ("ia", "it", "lt")
#: What ships, by name: those, and ``ia-compact``, a small network for devices.
SHIPPED = SHIPPED_CHECKPOINTS
#: Which of them has a face encoder of this kind.
SHIPPED_ENCODERS = {"efficientface": "ia", "compact": "ia-compact"}


def find_weights_folder() -> Path:
    """Where the checkpoints lie.

    Raises:
        MissingExtraError: the distribution that has them isn't installed.
    """
    found = find_spec("mer_weights")
    if found is None or found.origin is None:
        raise MissingExtraError("mer-edge-weights", "train", "a checkpoint that ships")
    return Path(found.origin).parent


def shipped_checkpoint(name: str = "ia") -> Path:
    """Where the checkpoint lies that ships as ``name``, one of ``SHIPPED``.

    Beside it lie the ranges of its calibration, ``NAME.ranges.json``: int8 needs no corpus.

    Raises:
        MissingExtraError: ``mer-edge-weights`` isn't installed.
    """
    return find_weights_folder() / f"{name}.safetensors"


def find_checkpoint(checkpoint: str | Path | None = None) -> Path:
    """The file for ``checkpoint``: a path, or the name of one that ships, such as ``ia-compact``.

    What lies in this folder under such a name comes first. None is the shipped ``ia``. Whether a
    path leads anywhere is left to ``mer.load_checkpoint``.

    Raises:
        MissingExtraError: it is one that ships, and ``mer-edge-weights`` isn't installed.
    """
    if checkpoint is None:
        return shipped_checkpoint()
    path = Path(checkpoint)
    if is_there(path):
        return path
    return shipped_checkpoint(str(checkpoint)) if str(checkpoint) in SHIPPED else path
