"""A trained network that a student learns from: what it makes of clips as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mer.checkpoint import Checkpoint
from mer.data.augmentation import Example, FaceView, plain_example
from mer.data.cache import Cache
from mer.data.dataset import Voices
from mer.data.features import FrozenFaces, find_view
from mer.errors import TrainingError
from mer.models import Standardiser
from mer_runtime.feeds import MODALITIES, Modality, name_modality
from mer_runtime.spec import Spec

#: Clips that the teacher answers at once.
BATCH = 16


class ClipTeacher:
    """Answers training clips once, unspoilt, with both modalities and with each alone.

    A student that sees a clip spoilt learns what the teacher says of it unspoilt.

    Raises:
        TrainingError: the teacher has other labels.
        CacheError: the cache was prepared otherwise than the teacher needs.
    """

    def __init__(self, checkpoint: Checkpoint, cache: Cache, spec: Spec, device: str) -> None:
        if checkpoint.spec.labels != spec.labels:
            theirs, ours = ", ".join(checkpoint.spec.labels), ", ".join(spec.labels)
            raise TrainingError(f"the teacher answers {theirs}, where the student has {ours}")
        cache.require(checkpoint.spec)
        self.spec, self.device = checkpoint.spec, device
        self.model = checkpoint.model.to(device).eval()
        self.feature_width: int = self.model.visual_model.feature_width
        self._faces = FrozenFaces(cache, self.spec, self.model, device)
        self._voices = Voices(cache, self.spec.audio)
        self._standardiser = Standardiser(self.spec).to(device)
        self._logits: dict[tuple[int, Modality], NDArray[np.float32]] = {}

    @torch.no_grad()
    def prepare(
        self,
        rows: Sequence[int],
        views: Sequence[FaceView],
        step: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compute the features of these rows' views, and the answers to the rows."""
        self._faces.prepare([(rows, list(dict.fromkeys(map(_unspoil, views))))], step)
        unused = np.random.default_rng(0)
        for modality in MODALITIES:
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                examples = [plain_example(row, modality) for row in some]
                mfcc = self._voices.mfcc(examples, unused).to(self.device)
                logits = self.model.head(
                    self._standardiser.audio(mfcc), self._faces.features(examples)
                )
                for row, answer in zip(some, logits.cpu().numpy(), strict=True):
                    self._logits[row, modality] = answer

    def logits(self, examples: Sequence[Example]) -> Tensor:
        """(B, classes) float32: what it says where the same modalities are there."""
        answers = [self._logits[one.row, _shown(one)] for one in examples]
        return torch.from_numpy(np.stack(answers)).to(self.device)

    def features(self, examples: Sequence[Example]) -> Tensor:
        """(B, frames, F) float32, zeros where the face is missing."""
        seen = [dataclasses.replace(one, face=_unspoil(one.face)) for one in examples]
        shown = torch.tensor([one.face.light > 0 for one in examples], device=self.device)
        return self._faces.features(seen) * shown[:, None, None]


def _unspoil(view: FaceView) -> FaceView:
    """The view without faults and in full light, unless the face is missing."""
    if view.light == 0:
        return FaceView(light=0.0)
    return find_view(FaceView(view.flip, view.angle))


def _shown(example: Example) -> Modality:
    return name_modality(face=example.face.light != 0, voice=example.voice != 0)
