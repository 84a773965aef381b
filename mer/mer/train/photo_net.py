"""A face encoder with a classifier of photos on top, as a student and as a teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mer.checkpoint import check_file, load_encoder, read_safetensors
from mer.data.photo_augmentation import resize_crops
from mer.errors import CheckpointError
from mer.models import build_encoder
from mer_runtime.errors import SpecError
from mer_runtime.files import hash_file, write_file

#: Key of our JSON note in a safetensors file's metadata.
METADATA_KEY = "mer_edge_encoder"
CLASSIFIER = "photo_classifier."


class PhotoNet(nn.Module):
    """Crops (N, 3, S, S) float32 in [0, 1] to logits (N, labels)."""

    def __init__(self, encoder: str, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.encoder: Any = build_encoder(encoder)
        self.fc = nn.Linear(self.feature_width, len(labels))

    @property
    def feature_width(self) -> int:
        """How many numbers describe a crop."""
        return int(self.encoder.feature_width)

    def features(self, crops: Tensor) -> Tensor:
        """(N, F)."""
        features: Tensor = self.encoder.features(crops)
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, F) to logits (N, labels)."""
        logits: Tensor = self.fc(features)
        return logits

    def forward(self, crops: Tensor) -> Tensor:
        return self.classify(self.features(crops))


def save_photo_net(path: Path, net: PhotoNet, note: Mapping[str, Any]) -> None:
    """Write the encoder's weights, named as the encoder names them, and the classifier's.

    Args:
        note: JSON-ready facts to keep: ``encoder``, ``size`` and ``labels`` are read again.

    Raises:
        OutputError: the file can't be written.
    """
    weights = dict(net.encoder.state_dict())
    weights |= {CLASSIFIER + name: value for name, value in net.fc.state_dict().items()}
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_file(path, save(plain, {METADATA_KEY: json.dumps(note)}))


def load_photo_net(path: Path) -> tuple[PhotoNet, int]:
    """Read what ``save_photo_net`` wrote: the net in eval mode and its crops' size in pixels.

    Raises:
        CheckpointError: the file can't be read, or mer-pretrain didn't write it.
    """
    check_file(path)
    weights, metadata = read_safetensors(path)
    try:
        note = json.loads(metadata[METADATA_KEY])
        name, size, labels = note["encoder"], int(note["size"]), tuple(note["labels"])
        classifier = {part: weights[CLASSIFIER + part] for part in ("weight", "bias")}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            path, "not an encoder with its classifier, as mer-pretrain writes it"
        ) from error
    try:
        net = PhotoNet(name, labels)
    except SpecError as error:
        raise CheckpointError(path, str(error)) from error
    net.encoder.load_state_dict(load_encoder(path, name))
    try:
        net.fc.load_state_dict(classifier)
    except RuntimeError as error:
        raise CheckpointError(path, f"its classifier isn't one of {len(labels)} labels") from error
    return net.eval(), size


def load_photo_weights(net: PhotoNet, path: Path) -> None:
    """Give ``net`` the weights of a file that ``save_photo_net`` wrote.

    Raises:
        CheckpointError: the file can't be read, or is of another encoder or of other labels.
    """
    found, _ = load_photo_net(path)
    _require_labels(path, "an encoder", found, net.labels)
    if type(found.encoder) is not type(net.encoder):
        theirs, ours = type(found.encoder).__name__, type(net.encoder).__name__
        raise CheckpointError(path, f"its encoder is {theirs}, not {ours}: ask for that one")
    net.load_state_dict(found.state_dict())


def _require_labels(path: Path, what: str, net: PhotoNet, labels: tuple[str, ...]) -> None:
    if net.labels != labels:
        theirs, ours = ", ".join(net.labels), ", ".join(labels)
        raise CheckpointError(path, f"{what} of {theirs}, where the photos have {ours}")


@dataclass(frozen=True)
class Taught:
    """What teachers make of a batch: logits (N, labels), features (N, F)."""

    logits: Tensor
    features: Tensor


class PhotoTeacher:
    """One net or several: their features side by side, their answers' mean.

    Raises:
        CheckpointError: a file can't be read or its net has other labels.
    """

    def __init__(self, paths: Sequence[str | Path], labels: Sequence[str], device: str) -> None:
        self._nets: list[tuple[PhotoNet, int]] = []
        self.digests: list[str] = []
        for path in map(Path, paths):
            net, size = load_photo_net(path)
            _require_labels(path, "a teacher", net, tuple(labels))
            self._nets.append((net.to(device), size))
            self.digests.append(hash_file(path))
        self.feature_width = sum(net.feature_width for net, _ in self._nets)

    @torch.no_grad()
    def answer(self, crops: Tensor) -> Taught:
        """Answer crops (N, 3, S, S) of any size: each net is given them at its own."""
        features, chances = [], []
        for net, size in self._nets:
            given = net.features(resize_crops(crops, size))
            features.append(given / given.norm(dim=1, keepdim=True).clamp_min(1e-6))
            chances.append(net.classify(given).softmax(dim=1))
        mean = torch.stack(chances).mean(dim=0)
        return Taught(mean.clamp_min(1e-8).log(), torch.cat(features, dim=1))
