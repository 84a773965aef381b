"""Checkpoints: ours (safetensors with the spec inside) and the reference implementation's."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mer.errors import CheckpointError
from mer.models import MultimodalNet, build_encoder, build_model, own_hash
from mer.pickles import find_weights, read_pickle
from mer.reference import REFERENCE_SPEC, read_reference, read_size
from mer_runtime.documents import parse_json
from mer_runtime.errors import MerWarning, SpecError
from mer_runtime.feeds import Temperatures
from mer_runtime.files import describe_fault, write_file
from mer_runtime.spec import ENCODER, Spec

#: Key of our JSON note in a safetensors file's metadata.
METADATA_KEY = "mer_edge"
FORMAT_VERSION = 1
#: Of a model that none was fitted for.
NEUTRAL = Temperatures()


@dataclass(frozen=True)
class Checkpoint:
    """A float model in eval mode, its spec, and what is known about its making.

    ``temperatures`` divide its logits before the softmax that gives probabilities
    (``mer.evaluate.confidence``).
    """

    model: MultimodalNet
    spec: Spec
    notes: dict[str, Any] = field(default_factory=dict)
    temperatures: Temperatures = NEUTRAL


def save_checkpoint(
    path: str | Path,
    model: MultimodalNet,
    spec: Spec,
    *,
    notes: Mapping[str, Any] | None = None,
    temperatures: Temperatures = NEUTRAL,
    half: bool = False,
) -> None:
    """Write weights and spec to one safetensors file, by a temporary name.

    Of a network of one's own (``mer.add_model``) it keeps the name and its file's sha256.

    Args:
        notes: JSON-ready facts to keep (corpus, epoch, metrics).
        temperatures: see ``Checkpoint``.
        half: store float16, which halves the file; loading gives float32 again.

    Raises:
        OutputError: the file can't be written.
    """
    note = {
        "format": FORMAT_VERSION,
        "spec": spec.to_dict(),
        "notes": dict(notes or {}),
        "temperatures": temperatures.to_dict(),
    }
    if code := {name: own_hash(name) for name in (spec.fusion, spec.encoder) if own_hash(name)}:
        note["code"] = code
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        tensors[name] = (value.half() if half and value.is_floating_point() else value).contiguous()
    content = save(tensors, metadata={METADATA_KEY: json.dumps(note)})
    write_file(Path(path), content)  # safetensors' own files are for their owner alone


def load_checkpoint(
    path: str | Path,
    *,
    num_heads: int | None = None,
    labels: tuple[str, ...] | None = None,
    spec: Spec | None = None,
) -> Checkpoint:
    """Read a checkpoint of ours, or one of the public reference implementation.

    The reference's file is a dict of weights, or has one in it, whose names may bear those of
    wrappers (see ``mer.pickles``). Fusion and number of classes are read off the weights. The
    number of heads leaves no trace in them: it comes from ``num_heads``, from a ``num_heads`` in
    the file or its options, from the ``opts*.json`` that the reference wrote beside its
    checkpoints when the run began, and is otherwise assumed to be 1, the reference's default,
    with a warning.

    Args:
        num_heads: overrides what the checkpoint says.
        labels: names of the classes; needed where the model has other than RAVDESS's eight.
        spec: preprocessing of a foreign checkpoint, if not the reference's; its fusion, labels
            and number of heads are replaced by what the weights and arguments say.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, or doesn't fit.
    """
    path = Path(path)
    check_file(path)
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # safetensors: eight bytes of length, then a JSON header
        if spec is not None:
            raise CheckpointError(path, "it says its preprocessing itself: give it no --spec")
        weights, found, notes, temperatures, code = _read_ours(path)
        _compare_code(path, code)
    else:
        weights, found, notes = read_reference(path, spec or REFERENCE_SPEC, num_heads)
        temperatures = NEUTRAL
    changes: dict[str, Any] = {}
    if num_heads is not None:
        changes["num_heads"] = num_heads
    if labels is not None:
        changes["labels"] = tuple(labels)
    try:
        found = dataclasses.replace(found, **changes)
        classes = read_size(path, weights, "classifier_1.0.weight", 0)
        if len(found.labels) != classes:
            raise CheckpointError(
                path,
                f"the model has {classes} classes but there are {len(found.labels)} labels: "
                f"name them with --labels",
            )
        model = build_model(found)
    except SpecError as error:
        raise CheckpointError(path, str(error)) from error
    _check_weights(path, weights, model.state_dict())
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(path, f"the weights don't fit the model: {reason}") from error
    return Checkpoint(model.eval(), found, notes, temperatures)


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
    check_file(path)
    if path.suffix == ".safetensors":
        weights = read_safetensors(path)[0]
    else:
        weights = find_weights(path, read_pickle(path))
    network = build_encoder(encoder)
    wanted = network.state_dict()
    for prefix in ("", "visual_model."):
        if all(prefix + name in weights for name in wanted):
            own = {name: weights[prefix + name].float() for name in wanted}
            _check_finite(path, own)
            return own
    missing = next(name for name in wanted if name not in weights)
    raise CheckpointError(path, f"no face encoder {encoder!r} is in it: it lacks {missing}")


def check_file(path: Path) -> None:
    """See that a file of weights can be read.

    Raises:
        CheckpointError: it can't.
    """
    fault = describe_fault(path, "checkpoint")
    if fault is not None:
        raise CheckpointError(path, fault)


def _read_ours(
    path: Path,
) -> tuple[dict[str, Tensor], Spec, dict[str, Any], Temperatures, dict[str, str]]:
    weights, metadata = read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise CheckpointError(path, "a safetensors file without mer-edge's spec in it")
    try:
        note = parse_json(metadata[METADATA_KEY])
        found, notes = note["spec"], note["notes"]
        version = note["format"]
        if version == FORMAT_VERSION:
            if not isinstance(notes, dict):
                raise SpecError("its notes are not an object")
            temperatures = Temperatures.read(note["temperatures"])
            code = {str(name): str(digest) for name, digest in note.get("code", {}).items()}
            return weights, Spec.from_dict(found), notes, temperatures, code
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(path, f"the spec in it can't be read: {error}") from error
    raise CheckpointError(path, f"checkpoint format {version} needs another version of mer-edge")


def _compare_code(path: Path, code: Mapping[str, str]) -> None:
    """Warn where a network's file isn't the one that a checkpoint was trained with."""
    for name, digest in code.items():
        now = own_hash(name)
        if now is not None and now != digest:
            warnings.warn(
                f"{path} was trained with another version of {name} (sha256 {digest[:12]}, now "
                f"{now[:12]}): its answers may be others",
                MerWarning,
                stacklevel=3,
            )


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


def _check_weights(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Say in one line where what was found isn't what was expected."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    told = []
    if missing:
        told.append(f"{len(missing)} of {len(expected)} are missing, as {missing[0]}")
    if surplus:
        told.append(f"{len(surplus)} have no place in it, as {surplus[0]}")
    if not told:
        for name, value in expected.items():
            if found[name].shape != value.shape:
                shapes = (tuple(one.shape) for one in (found[name], value))
                told.append("{} is {}, where {} is expected".format(name, *shapes))
                break
    if told:
        raise CheckpointError(path, f"the weights don't fit the model: {'; '.join(told)}")
    _check_finite(path, found)


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """A training that diverged leaves weights that are no numbers, and such answers."""
    wrong = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if wrong:
        told = f"{len(wrong)} of its {len(weights)} weights hold values that aren't finite numbers"
        raise CheckpointError(path, f"{told}, as {wrong[0]}")
