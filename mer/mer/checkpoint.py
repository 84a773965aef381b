"""Checkpoints: ours (safetensors with the spec inside) and the reference implementation's."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mer.errors import CheckpointError
from mer.models import MultimodalNet, build_encoder, build_model
from mer_runtime.errors import OutputError, SpecError
from mer_runtime.files import replacing
from mer_runtime.spec import ENCODER, RAVDESS_LABELS, AudioSpec, Spec, VideoSpec

#: Key of our JSON note in a safetensors file's metadata.
METADATA_KEY = "mer_edge"
FORMAT_VERSION = 1

#: How the reference implementation prepares its inputs (its datasets/ravdess.py and
#: extract_faces.py): librosa's default rate, no amplitude normalisation, OpenCV's BGR, /255.
REFERENCE_SPEC = Spec(
    audio=AudioSpec(sample_rate=22_050, n_mfcc=10, amplitude="none"),
    video=VideoSpec(colour="bgr", margin=0.0),
)


@dataclass(frozen=True)
class Checkpoint:
    """A float model in eval mode, its spec, and what is known about its making.

    ``temperature`` divides its logits before the softmax that gives probabilities
    (``mer.evaluate.confidence``).
    """

    model: MultimodalNet
    spec: Spec
    notes: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0


def save_checkpoint(
    path: Path,
    model: MultimodalNet,
    spec: Spec,
    *,
    notes: Mapping[str, Any] | None = None,
    temperature: float = 1.0,
    half: bool = False,
) -> None:
    """Write weights and spec to one safetensors file, by a temporary name.

    Args:
        notes: JSON-ready facts to keep (corpus, epoch, metrics).
        temperature: see ``Checkpoint``.
        half: store float16, which halves the file; loading gives float32 again.

    Raises:
        OutputError: the file can't be written.
    """
    note = {
        "format": FORMAT_VERSION,
        "spec": spec.to_dict(),
        "notes": dict(notes or {}),
        "temperature": temperature,
    }
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        tensors[name] = (value.half() if half and value.is_floating_point() else value).contiguous()
    with replacing(path) as part:
        try:
            save_file(tensors, part, metadata={METADATA_KEY: json.dumps(note)})
        except SafetensorError as error:
            raise OutputError(path, str(error)) from error


def load_checkpoint(
    path: str | Path,
    *,
    num_heads: int | None = None,
    labels: tuple[str, ...] | None = None,
    spec: Spec | None = None,
) -> Checkpoint:
    """Read a checkpoint of ours, or one of the public reference implementation.

    The reference's file is a dict of weights, or one with ``state_dict`` in it, whose names may
    begin with ``module.``. Fusion and number of classes are read off the weights. The number of
    heads leaves no trace in them: it comes from ``num_heads``, from a ``num_heads`` in the file
    (or in its ``opt``/``args``), from the ``opts*.json`` that the reference writes beside its
    checkpoints, and is 1, the reference's default, otherwise.

    Args:
        num_heads: overrides what the checkpoint says.
        labels: names of the classes; needed where the model has other than RAVDESS's eight.
        spec: preprocessing of a foreign checkpoint, if not the reference's; its fusion, labels
            and number of heads are replaced by what the weights and arguments say.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, or doesn't fit.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "there is no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(path, "the file is empty")
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # safetensors: eight bytes of length, then a JSON header
        weights, found, notes, temperature = _read_ours(path)
    else:
        weights, found, notes = _read_reference(path, spec or REFERENCE_SPEC)
        temperature = 1.0
    changes: dict[str, Any] = {}
    if num_heads is not None:
        changes["num_heads"] = num_heads
    if labels is not None:
        changes["labels"] = tuple(labels)
    try:
        found = dataclasses.replace(found, **changes)
        classes = _size(path, weights, "classifier_1.0.weight", 0)
        if len(found.labels) != classes:
            raise CheckpointError(
                path,
                f"the model has {classes} classes but there are {len(found.labels)} labels: "
                f"name them with --labels",
            )
        model = build_model(found)
        model.load_state_dict(weights)
    except (SpecError, RuntimeError) as error:
        first = str(error).strip().splitlines()
        detail = first[1].strip() if len(first) > 1 else first[0]
        raise CheckpointError(path, f"the weights don't fit the model: {detail}") from error
    return Checkpoint(model.eval(), found, notes, temperature)


def load_encoder(path: str | Path, encoder: str = ENCODER) -> dict[str, Tensor]:
    """Encoder weights from ``mer-pretrain`` or from a published EfficientFace checkpoint.

    Args:
        encoder: which one they are of, by its name in ``mer.models.ENCODERS``.

    Returns:
        A state dict that the encoder takes whole; a classifier in the file is dropped.

    Raises:
        CheckpointError: the file can't be read or lacks some of the encoder's weights.
        SpecError: there is no such encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "there is no such file")
    if path.suffix == ".safetensors":
        weights = read_safetensors(path)[0]
    else:
        weights = _state_dict(path, _read_pickle(path))
    network = build_encoder(encoder)
    wanted = network.state_dict()
    for prefix in ("", "visual_model."):
        if all(prefix + name in weights for name in wanted):
            return {name: weights[prefix + name].float() for name in wanted}
    missing = next(name for name in wanted if name not in weights)
    raise CheckpointError(path, f"not an {type(network).__name__} encoder: it lacks {missing}")


def _read_ours(path: Path) -> tuple[dict[str, Tensor], Spec, dict[str, Any], float]:
    weights, metadata = read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise CheckpointError(path, "a safetensors file without mer-edge's spec in it")
    try:
        note = json.loads(metadata[METADATA_KEY])
        found, notes = note["spec"], note["notes"]
        version = note["format"]
        if version == FORMAT_VERSION:
            if not isinstance(notes, dict):
                raise SpecError("its notes are not an object")
            temperature = note.get("temperature", 1.0)
            if not (type(temperature) in (int, float) and 0 < temperature < math.inf):
                raise CheckpointError(path, f"its temperature {temperature} is no positive number")
            return weights, Spec.from_dict(found), notes, float(temperature)
    except (json.JSONDecodeError, KeyError, TypeError, SpecError) as error:
        raise CheckpointError(path, f"the spec in it can't be read: {error}") from error
    raise CheckpointError(path, f"checkpoint format {version} needs another version of mer-edge")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights, halves as floats, and the file's own notes.

    Raises:
        CheckpointError: the file can't be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"truncated or not a safetensors file ({error})") from error
    floats = {n: v.float() if v.is_floating_point() else v for n, v in weights.items()}
    return floats, metadata


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise just anything
        raise CheckpointError(path, "truncated or not a PyTorch checkpoint of weights") from error
    if not isinstance(data, Mapping):
        raise CheckpointError(path, f"holds a {type(data).__name__}, not a dict of weights")
    return data


def _state_dict(path: Path, data: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a reference checkpoint, without the ``module.`` of DataParallel."""
    raw = data.get("state_dict", data)
    weights = {}
    for name, value in raw.items() if isinstance(raw, Mapping) else ():
        if isinstance(name, str) and isinstance(value, Tensor):
            weights[name.removeprefix("module.")] = value
    if not weights:
        raise CheckpointError(path, "holds no weights")
    return weights


def _read_reference(path: Path, base: Spec) -> tuple[dict[str, Tensor], Spec, dict[str, Any]]:
    data = _read_pickle(path)
    weights = _state_dict(path, data)
    fusion = _find_fusion(path, weights)
    n_mfcc = _size(path, weights, "audio_model.conv1d_0.0.weight", 1)
    classes = _size(path, weights, "classifier_1.0.weight", 0)
    labels = base.labels if len(base.labels) == classes else RAVDESS_LABELS
    try:
        spec = dataclasses.replace(
            base,
            fusion=fusion,
            num_heads=_find_num_heads(path, data),
            audio=dataclasses.replace(base.audio, n_mfcc=n_mfcc),
            labels=labels,
        )
    except SpecError as error:
        raise CheckpointError(path, f"its spec doesn't hold: {error}") from error
    notes = {"origin": "reference implementation", "file": path.name}
    if isinstance(data.get("epoch"), int):
        notes["epoch"] = data["epoch"]
    return weights, spec, notes


def _find_fusion(path: Path, weights: Mapping[str, Tensor]) -> str:
    signs = {"ia": "av1.q.weight", "it": "av1.attn.q.weight", "lt": "av.attn.q.weight"}
    for fusion, name in signs.items():
        if name in weights and "audio_model.conv1d_0.0.weight" in weights:
            return fusion
    raise CheckpointError(
        path, "not a face-and-voice checkpoint: its weights are of none of the three fusions"
    )


def _find_num_heads(path: Path, data: Mapping[str, Any]) -> int:
    for holder in (data, data.get("opt"), data.get("args")):
        if isinstance(holder, Mapping) and isinstance(holder.get("num_heads"), int):
            return int(holder["num_heads"])
    for options in sorted(path.parent.glob("opts*.json")):
        try:
            heads = json.loads(options.read_text()).get("num_heads")
        except (OSError, ValueError, AttributeError):
            continue  # not the reference's file: it only resembles one
        if isinstance(heads, int):
            return heads
    return 1


def _size(path: Path, weights: Mapping[str, Tensor], name: str, axis: int) -> int:
    if name not in weights:
        raise CheckpointError(path, f"it lacks the weights {name}")
    if weights[name].ndim <= axis:
        raise CheckpointError(path, f"the weights {name} have the wrong shape")
    return weights[name].shape[axis]
