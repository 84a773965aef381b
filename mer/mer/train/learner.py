"""A model with what changes it in training: data, optimiser, schedule, moving average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from mer.data.augmentation import (
    Example,
    FaceView,
    draw_examples,
    drop_channels,
    plain_example,
)
from mer.data.cache import Cache
from mer.data.dataset import FaceSource, LiveFaces, Voices, read_targets
from mer.data.features import FrozenFaces, list_views
from mer.errors import TrainingError
from mer.evaluate.metrics import ClassificationMetrics, Scores
from mer.models import MultimodalNet, Standardiser
from mer.protocols import Plateau, Protocol, Sgd, Steps
from mer.train.averaging import move_average
from mer.train.distillation import Distillation, FeatureMatch, blend_losses
from mer.train.runs import Row
from mer.train.teacher import ClipTeacher
from mer_runtime.feeds import Modality
from mer_runtime.spec import Spec

#: Called with the stage's name ("features" or "training"), steps done and steps in all.
Progress = Callable[[str, int, int], None]

#: Clips a step when nothing is learnt.
VALIDATION_BATCH = 8


class Learner:
    """Trains ``model`` on ``rows["train"]`` epoch by epoch, validates on ``rows["validation"]``.

    Attributes:
        bf16: whether a step's products are of bfloat16; weights, sums and validation are float32.
        kept: what is validated and worth saving: the moving average of the weights where the
            protocol has one, else the model itself.
    """

    def __init__(
        self,
        model: MultimodalNet,
        protocol: Protocol,
        cache: Cache,
        spec: Spec,
        rows: Mapping[str, Sequence[int]],
        *,
        frozen: bool,
        device: str,
        bf16: bool = False,
        teacher: ClipTeacher | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        self.model, self.protocol, self.device, self.bf16 = model, protocol, device, bf16
        self.teacher, self.distillation = teacher, distillation or Distillation()
        self.train_rows, self.validation_rows = rows["train"], rows["validation"]
        if frozen:
            freeze_encoder(model)
        self.average: AveragedModel | None = None
        if protocol.ema_decay is not None:
            # The batch statistics are averaged too: their own average, over some ten batches, of
            # which some lack more modalities than others, makes validation waver.
            decay = protocol.ema_decay
            self.average = AveragedModel(
                model,
                multi_avg_fn=lambda kept, new, done: move_average(kept, new, decay, int(done)),
                use_buffers=True,
            )
        self.kept = cast(MultimodalNet, self.average.module) if self.average else model
        self.standardiser = Standardiser(spec).to(device)
        self.num_classes = len(spec.labels)
        every = range(len(cache.rows))
        self.targets = torch.from_numpy(read_targets(cache, every, spec)).to(device)
        spoils = protocol.voice is not None and protocol.voice.spoilt > 0
        talkers = self.train_rows if spoils else ()
        self.voices = Voices(cache, spec.audio, protocol.voice, talkers)
        self.clean_voices = Voices(cache, spec.audio) if protocol.voice else self.voices
        self.faces: FaceSource
        self.validation_faces: FaceSource
        self.frozen_faces = FrozenFaces(cache, spec, model, device) if frozen else None
        if self.frozen_faces:
            self.faces = self.validation_faces = self.frozen_faces
        else:
            self.faces = LiveFaces(cache, spec, model, device)
            self.validation_faces = LiveFaces(cache, spec, self.kept, device)
        # A frozen encoder has no features to learn.
        self.match: FeatureMatch | None = None
        if teacher and not frozen:
            width = model.visual_model.feature_width
            self.match = FeatureMatch(width, teacher.feature_width).to(device)
        self.optimizer = make_optimizer(model, protocol, self.match)
        self.scheduler = make_scheduler(self.optimizer, protocol)

    def prepare(self, progress: Progress | None) -> None:
        """Compute the frame features that a frozen encoder's cache or the teacher's still lacks."""
        step = (lambda done, total: progress("features", done, total)) if progress else None
        if self.teacher:
            self.teacher.prepare(self.train_rows, list_views(self.protocol), step)
        if self.frozen_faces and self.protocol.modality != "audio":
            wanted = [
                (self.train_rows, list_views(self.protocol)),
                (self.validation_rows, [FaceView()]),
            ]
            self.frozen_faces.prepare(wanted, step)

    def run_epochs(
        self, history: Sequence[Row], seed: int, progress: Progress | None
    ) -> Iterator[Row]:
        """Run the epochs of the protocol that ``history`` lacks, and give the metrics of each.

        Raises:
            TrainingError: the loss isn't finite.
        """
        for epoch in range(int(history[-1]["epoch"]) if history else 0, self.protocol.epochs):
            yield self.run_epoch(epoch, seed, progress)

    def run_epoch(self, epoch: int, seed: int, progress: Progress | None) -> Row:
        """Train over all clips once, validate, step the schedule; epochs count from 0.

        Raises:
            TrainingError: the loss isn't finite.
        """
        rate = self.optimizer.param_groups[0]["lr"]
        # Drawn from (seed, epoch), so that a resumed run draws what an unbroken one does.
        generator = np.random.default_rng((seed, epoch))
        dropout = torch.Generator().manual_seed(int(generator.integers(2**62)))
        order = generator.permutation(np.asarray(self.train_rows))
        size = self.protocol.batch_size
        starts = range(0, len(order), size)
        losses, hits, seen = 0.0, 0, 0
        self.model.train()
        # Where a modality is missing in every clip its branch sees one input: batches have no
        # variance there, and running statistics of none would blow up what validation sees.
        if self.protocol.modality == "audio":
            self.model.visual_model.eval()
        elif self.protocol.modality == "video":
            self.model.audio_model.eval()
        for i, start in enumerate(starts):
            rows = order[start : start + size].tolist()
            examples = draw_examples(rows, self.protocol, generator)
            loss, right = self._learn(examples, generator, dropout)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is not finite in epoch {epoch + 1}, batch {i + 1}: "
                    "try a lower --learning-rate"
                )
            n = len(examples)
            losses, hits, seen = losses + loss * n, hits + right, seen + n
            if progress:
                batches = len(starts)
                progress("training", epoch * batches + i + 1, self.protocol.epochs * batches)
        scores = self.validate()
        alone = {m: self.validate(m) for m in self.protocol.validated_on[1:]}
        if not math.isfinite(scores.loss):
            raise TrainingError(
                f"the validation loss is not finite in epoch {epoch + 1}: "
                "try a lower --learning-rate"
            )
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(scores.loss)
        else:
            self.scheduler.step()
        return {
            "epoch": epoch + 1,
            "lr": rate,
            "train_loss": losses / seen,
            "train_prec1": 100 * hits / seen,
            **describe_validation(scores),
            **{f"validation_{m}_prec1": one.prec1 for m, one in alone.items()},
        }

    def validate(self, modality: Modality | None = None) -> Scores:
        """Score ``kept`` on the validation rows, by default in the protocol's modality."""
        metrics = ClassificationMetrics(self.num_classes)
        metrics.update(*self.answer_validation(modality))
        return metrics.compute()

    @torch.no_grad()
    def answer_validation(
        self, modality: Modality | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits (n, classes) of ``kept`` for the validation rows, and their classes (n,)."""
        fed = modality or self.protocol.modality
        self.kept.eval()
        unused = np.random.default_rng(0)
        logits = []
        for start in range(0, len(self.validation_rows), VALIDATION_BATCH):
            rows = self.validation_rows[start : start + VALIDATION_BATCH]
            examples = [plain_example(row, fed) for row in rows]
            audio = self._hear(self.clean_voices, examples, unused)
            frames = self.validation_faces.features(examples)
            logits.append(self.kept.head(audio, frames).cpu().numpy())
        return np.concatenate(logits), self.targets[list(self.validation_rows)].cpu().numpy()

    def state(self) -> dict[str, Any]:
        """All that ``load_state`` needs to go on from here, loadable with ``weights_only``."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "match": self.match.state_dict() if self.match else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.load_state_dict(state["average"])
        if self.match:
            self.match.load_state_dict(state["match"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])

    def _learn(
        self, examples: Sequence[Example], generator: np.random.Generator, dropout: torch.Generator
    ) -> tuple[float, int]:
        """One step; gives the mean loss and how many answers were right."""
        audio = self._hear(self.voices, examples, generator)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            features = self.faces.features(examples)
            frames = drop_channels(features, self.protocol.feature_dropout, dropout)
            logits = self.model.head(audio, frames).float()
        targets: Tensor = self.targets[[e.row for e in examples]]
        loss = functional.cross_entropy(
            logits, targets, label_smoothing=self.protocol.label_smoothing
        )
        if self.teacher:
            loss = blend_losses(loss, logits, self.teacher.logits(examples), self.distillation)
            if self.match:
                missed = self.match(features.float(), self.teacher.features(examples))
                loss = loss + self.distillation.features * missed
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.model)
        return loss.item(), int((logits.argmax(dim=1) == targets).sum())

    def _hear(
        self, voices: Voices, examples: Sequence[Example], generator: np.random.Generator
    ) -> Tensor:
        """Standardised MFCCs (B, n_mfcc, T) float32."""
        return self.standardiser.audio(voices.mfcc(examples, generator).to(self.device))


def describe_validation(scores: Scores) -> Row:
    """The part of an epoch's metrics that validation gives."""
    return {
        "validation_loss": scores.loss,
        "validation_prec1": scores.prec1,
        "validation_prec5": scores.prec5,
    }


def freeze_encoder(model: MultimodalNet) -> None:
    """Keep the encoder's weights out of training; it must not be run in training mode either."""
    own = model.visual_model.encoder_weights()
    for name, weight in model.visual_model.named_parameters():
        if name in own:
            weight.requires_grad_(False)


def make_optimizer(
    model: MultimodalNet, protocol: Protocol, match: FeatureMatch | None = None
) -> torch.optim.Optimizer:
    """The protocol's optimiser of all weights that aren't frozen, and of ``match``'s."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    weights += match.parameters() if match else ()
    rate, decay, kind = protocol.learning_rate, protocol.weight_decay, protocol.optimizer
    if isinstance(kind, Sgd):
        return torch.optim.SGD(
            weights, rate, momentum=kind.momentum, dampening=kind.dampening, weight_decay=decay
        )
    return torch.optim.AdamW(weights, rate, weight_decay=decay)


def make_scheduler(
    optimizer: torch.optim.Optimizer, protocol: Protocol
) -> lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau:
    """The protocol's schedule, to be stepped after each epoch."""
    schedule = protocol.schedule
    if isinstance(schedule, Plateau):
        return lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=schedule.factor, patience=schedule.patience
        )
    if isinstance(schedule, Steps):
        # A milestone counts the epochs that are over.
        milestones = [epoch - 1 for epoch in schedule.epochs]
        return lr_scheduler.MultiStepLR(optimizer, milestones, gamma=schedule.factor)
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=protocol.epochs)
