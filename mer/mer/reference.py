"""Checkpoints of the public reference implementation: weights, and what its files say of them."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mer.errors import CheckpointError
from mer.pickles import find_weights, list_settings, read_pickle
from mer_runtime.documents import read_json
from mer_runtime.errors import MerWarning, SpecError
from mer_runtime.spec import RAVDESS_LABELS, AudioSpec, Spec, VideoSpec

logger = logging.getLogger(__name__)

#: How the reference implementation prepares its inputs (its datasets/ravdess.py and
#: extract_faces.py): librosa's default rate, no amplitude normalisation, OpenCV's BGR, /255.
REFERENCE_SPEC = Spec(
    audio=AudioSpec(sample_rate=22_050, n_mfcc=10, amplitude="none"),
    video=VideoSpec(colour="bgr", margin=0.0),
)


def read_reference(
    path: Path, base: Spec, num_heads: int | None
) -> tuple[dict[str, Tensor], Spec, dict[str, Any]]:
    """Weights, spec and notes of a checkpoint of the reference implementation.

    Args:
        base: preprocessing.
        num_heads: what the file would be asked for.

    Raises:
        CheckpointError: it can't be read, or isn't one.
    """
    data = read_pickle(path)
    weights = find_weights(path, data)
    fusion = _find_fusion(path, weights)
    said = _find_setting(data, "fusion", str)
    if said is not None and said != fusion:
        raise CheckpointError(path, f"it says fusion {said}, but its weights are of {fusion}")
    n_mfcc = read_size(path, weights, "audio_model.conv1d_0.0.weight", 1)
    classes = read_size(path, weights, "classifier_1.0.weight", 0)
    labels = base.labels if len(base.labels) == classes else RAVDESS_LABELS
    try:
        spec = dataclasses.replace(
            base,
            fusion=fusion,
            num_heads=_find_num_heads(path, data, fusion) if num_heads is None else num_heads,
            audio=dataclasses.replace(base.audio, n_mfcc=n_mfcc),
            labels=labels,
        )
    except SpecError as error:
        raise CheckpointError(path, f"its spec doesn't hold: {error}") from error
    notes: dict[str, Any] = {"origin": "reference implementation", "file": path.name}
    epoch = _find_setting({"epoch": data.get("epoch")}, "epoch", int)
    if epoch is not None:
        notes["epoch"] = int(epoch)
    return weights, spec, notes


def _find_fusion(path: Path, weights: Mapping[str, Tensor]) -> str:
    signs = {
        "gated": "trust_audio.weight",  # beside those of ia
        "ia": "av1.q.weight",
        "it": "av1.attn.q.weight",
        "lt": "av.attn.q.weight",
    }
    for fusion, name in signs.items():
        if name in weights and "audio_model.conv1d_0.0.weight" in weights:
            return fusion
    names = ", ".join(sorted({name.split(".")[0] for name in weights}))
    raise CheckpointError(
        path,
        f"not a face-and-voice checkpoint: its weights are of {names[:200]}, and of none of the "
        "fusions, which have audio_model, visual_model, classifier_1 and av or av1",
    )


def _find_setting(data: Mapping[str, Any], name: str, kind: type) -> Any | None:
    """What a file's options say under ``name``, NumPy's numbers included."""
    for settings in list_settings(data):
        value = settings.get(name)
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
    return None


def _find_num_heads(path: Path, data: Mapping[str, Any], fusion: str) -> int:
    heads = _find_setting(data, "num_heads", int)
    if heads is not None:
        return int(heads)
    options = _find_options(path, fusion)
    if options is not None:
        logger.info("%s: %d heads, by %s beside it", path, options[1], options[0].name)
        return options[1]
    warnings.warn(
        f"{path}: nothing says how many attention heads it has: 1 is assumed, the reference's "
        "default; give --num-heads if it was trained with others",
        MerWarning,
        stacklevel=4,
    )
    return 1


def _find_options(path: Path, fusion: str) -> tuple[Path, int] | None:
    """Of the reference's option files beside a checkpoint its own, and the heads in it.

    A run writes one when it begins, and its checkpoints later: it is the last that is older than
    the checkpoint, and of the same fusion.
    """
    found = []
    for file in path.parent.glob("opts*.json"):
        try:
            settings = read_json(file)
            heads, begun = settings.get("num_heads"), file.stat().st_mtime_ns
        except (OSError, ValueError, AttributeError):
            continue  # not the reference's file: it only resembles one
        if type(heads) is int and settings.get("fusion", fusion) == fusion:
            found.append((begun <= path.stat().st_mtime_ns, begun, file.name, heads))
    if not found:
        return None
    _, _, name, heads = max(found)
    if len({one[-1] for one in found}) > 1:
        warnings.warn(
            f"{path}: several runs wrote their options beside it; {name} is taken for its own, "
            f"with num_heads {heads}: give --num-heads if that is wrong",
            MerWarning,
            stacklevel=5,
        )
    return path.with_name(name), heads


def read_size(path: Path, weights: Mapping[str, Tensor], name: str, axis: int) -> int:
    """A side of one of the weights.

    Raises:
        CheckpointError: they are missing, or have too few sides.
    """
    if name not in weights:
        raise CheckpointError(path, f"it lacks the weights {name}")
    if weights[name].ndim <= axis:
        raise CheckpointError(path, f"the weights {name} have the wrong shape")
    return weights[name].shape[axis]
