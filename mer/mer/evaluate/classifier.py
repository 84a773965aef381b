"""A checkpoint or a bundle behind one interface: a clip at a time, crops and MFCCs to logits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mer.checkpoint import Checkpoint, load_checkpoint
from mer.data.dataset import require_device
from mer.errors import CheckpointError
from mer.models import Standardiser
from mer.weights import SHIPPED, find_checkpoint
from mer_runtime.bundle import list_shipped_bundles, measure_graphs, shipped_bundle
from mer_runtime.errors import MissingModalityError
from mer_runtime.feeds import Temperatures
from mer_runtime.files import describe_fault, is_folder, is_there, may_be_file
from mer_runtime.recognizer import Recognizer
from mer_runtime.spec import Spec

logger = logging.getLogger(__name__)


class Classifier(Protocol):
    """What ``mer_runtime.Recognizer`` and ``NetworkClassifier`` have in common."""

    @property
    def spec(self) -> Spec: ...

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (frames, S, S, 3) uint8 in the spec's colour order to features (frames, F)."""
        ...

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Raw MFCCs (n_mfcc, T) and features (frames, F), None where missing, to logits."""
        ...


class NetworkClassifier:
    """The float network of a checkpoint, in eval mode, on ``device``."""

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        self.spec, self.device = checkpoint.spec, device
        self.model = checkpoint.model.to(device).eval()
        self._standardiser = Standardiser(self.spec).to(device)
        self._no_voice = np.zeros(self.spec.audio.shape, np.float32)

    @torch.inference_mode()
    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (frames, S, S, 3) uint8 in the spec's colour order to features (frames, F)."""
        crops = torch.from_numpy(np.ascontiguousarray(faces)).to(self.device)
        features = self.model.encode(self._standardiser.video(crops[None]))[0]
        return np.asarray(features.cpu().numpy())

    @torch.inference_mode()
    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Logits (classes,); a missing modality is zero MFCCs or black crops.

        Raises:
            MissingModalityError: both are None.
        """
        if mfcc is None and features is None:
            raise MissingModalityError("neither face nor voice: give at least one of them")
        heard = torch.from_numpy(self._no_voice if mfcc is None else mfcc).to(self.device)
        shown = np.tile(self.no_face, (self.spec.video.frames, 1)) if features is None else features
        seen = torch.from_numpy(shown).to(self.device)
        logits = self.model.head(self._standardiser.audio(heard[None]), seen[None])[0]
        return np.asarray(logits.cpu().numpy())

    @cached_property
    def no_face(self) -> NDArray[np.float32]:
        """Features (F,) of a black crop, which stands for a missing face."""
        black = np.zeros((1, *self.spec.video.shape[1:]), np.uint8)
        return np.asarray(self.encode(black)[0])


@dataclass(frozen=True)
class OpenModel:
    """A model that was found and loaded.

    Attributes:
        name: as it was asked for.
        temperatures: what its logits are divided by before the softmax.
        size: bytes of the checkpoint's file, or of the bundle's graphs.
        face_detector: the YuNet file that a bundle carries.
        notes: what a checkpoint's training wrote beside its weights.
    """

    name: str
    kind: Literal["checkpoint", "bundle"]
    classifier: Classifier
    temperatures: Temperatures
    size: int
    face_detector: Path | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        return self.classifier.spec


def open_model(
    model: str | Path,
    *,
    num_heads: int | None = None,
    labels: tuple[str, ...] | None = None,
    device: str = "cpu",
) -> OpenModel:
    """Load a checkpoint file, a bundle folder, or what ships under a name.

    Args:
        model: a path; where there is none such, ``ia``, ``it``, ``lt`` and ``ia-compact`` are
            the checkpoints that ship, ``ia-int8`` and ``ia-compact-int8`` the bundles.
        num_heads, labels: for a foreign checkpoint (see ``mer.load_checkpoint``).
        device: for a checkpoint; a bundle runs on its own engine.

    Raises:
        CheckpointError, BundleError: it can't be read.
        TrainingError: there is no such device.
    """
    require_device(device)
    path = find_model(model)
    if is_folder(path):
        recognizer = Recognizer.load(path)
        bundle = recognizer.bundle
        size = measure_graphs(bundle)
        return OpenModel(
            str(model), "bundle", recognizer, bundle.temperatures, size, bundle.face_detector
        )
    checkpoint = load_checkpoint(path, num_heads=num_heads, labels=labels)
    logger.info("checkpoint %s: fusion %s on %s", path, checkpoint.spec.fusion, device)
    classifier = NetworkClassifier(checkpoint, device)
    size = path.stat().st_size
    return OpenModel(
        str(model), "checkpoint", classifier, checkpoint.temperatures, size, notes=checkpoint.notes
    )


def find_model(model: str | Path) -> Path:
    """The file or folder that ``open_model`` takes for ``model``.

    Raises:
        CheckpointError: there is none.
    """
    path = find_checkpoint(model)
    if not is_there(path):
        path = shipped_bundle(str(model)) or path
    if not is_there(path):
        shipped = ", ".join([*SHIPPED, *list_shipped_bundles()])
        missing = "there is no such file or folder"
        fault = describe_fault(path) if may_be_file(path) else missing
        raise CheckpointError(model, f"{fault}, and what ships is {shipped}")
    return path
