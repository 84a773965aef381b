"""Quantisation-aware fine-tuning: a trained checkpoint to one that loses less in int8.

A short training during which weights and activations are rounded as the int8 engine will round
them (``mer.train.fake_quantisation``). Batch normalisations keep their statistics and factors,
since the engine has them folded into the weights. The float model that it starts from is also the
teacher: the loss is the cross-entropy with the right class plus the Kullback-Leibler divergence
from the teacher's answers (Hinton et al., 2015, at temperature 1), so that the tuned model stays
near it.

With a frozen encoder only what follows it is tuned and fake-quantised, on frame features that the
float encoder leaves in the cache: seconds an epoch, but blind to what int8 does to the encoder.
With a live encoder everything is, at more than the time and memory of ordinary training: there a
protocol made for a frozen encoder may need a smaller batch.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mer.checkpoint import load_checkpoint
from mer.data.augmentation import Example, draw_examples
from mer.data.cache import Cache
from mer.data.dataset import FaceSource, LiveFaces, require_device
from mer.data.features import hash_encoder
from mer.data.splits import load_splits
from mer.errors import TrainingError
from mer.models import MultimodalNet
from mer.protocols import PROTOCOLS, Cosine, Protocol
from mer.train.fake_quantisation import FakeQuantisation
from mer.train.learner import Learner, Progress, describe_validation
from mer.train.runs import Row, RunFolder, rank_by_loss
from mer.train.training import (
    Freeze,
    TrainingSummary,
    complete_run,
    customise_protocol,
    describe_protocol,
)
from mer_runtime.spec import Fusion, Spec

DEFAULT_EPOCHS = 2
#: The learning rate, as a share of the protocol's.
RATE_SHARE = 0.01
#: Training batches over which the ranges of activations are observed before the first epoch.
OBSERVED_BATCHES = 20


def tune_model(
    cache: Path,
    out: Path,
    checkpoint: Path,
    *,
    fusion: Fusion | None = None,
    protocol: str | Protocol | None = None,
    freeze: Freeze | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    seed: int = 1,
    device: str = "cpu",
    resume: bool = False,
    fold: int | None = None,
    report: Callable[[Row], None] | None = None,
    progress: Progress | None = None,
) -> TrainingSummary:
    """Tune ``checkpoint`` for int8 on the cache's training actors.

    Writes into ``out`` what ``mer.train.training.train_model`` writes; ``best.safetensors`` is an
    ordinary float checkpoint. Validation figures and the temperature are those of the
    fake-quantised model; the best epoch has the lowest such loss. Epoch 0 is the checkpoint as it
    was, and is kept where tuning doesn't help.

    Args:
        fusion: refused where it isn't the checkpoint's.
        protocol: a name from ``PROTOCOLS`` or a protocol; without, the one that the checkpoint
            was trained by, if known, else the paper's. Its schedule becomes a cosine; moving
            average and feature dropout are left out.
        freeze: ``"encoder"`` leaves the encoder in float and as it is, ``"none"`` tunes it too;
            without, as the checkpoint was trained.
        epochs: 2 without.
        learning_rate: a hundredth of the protocol's without.
        fold: without, the one that the checkpoint was trained on, if known.
        batch_size, weight_decay, seed, device, resume, report: see ``train_model``; epoch 0 is
            reported too.

    Raises:
        CheckpointError: ``checkpoint`` can't be read.
        CacheError, CorpusError: the cache can't be read, doesn't suit the checkpoint's
            preprocessing, or lacks a split.
        TrainingError: an option contradicts the checkpoint, or as for ``train_model``.
        OutputError: ``out`` can't be written.
    """
    source = load_checkpoint(checkpoint)
    spec = source.spec
    if fusion not in (None, spec.fusion):
        raise TrainingError(f"{checkpoint} has fusion {spec.fusion}, not {fusion}: --qat keeps it")
    plan = plan_tuning(
        protocol or _find_protocol(source.notes), epochs, batch_size, learning_rate, weight_decay
    )
    fold = _find_fold(checkpoint, source.notes, fold)
    frozen = (freeze or source.notes.get("freeze")) == "encoder"
    require_device(device)
    data = Cache.open(cache)
    data.require(spec)
    rows = {split: data.select(split, fold) for split in ("train", "validation")}
    model = source.model.to(device)
    settings = {
        "fusion": spec.fusion,
        "protocol": describe_protocol(plan),
        "encoder": hash_encoder(model),
        "freeze": "encoder" if frozen else None,
        "seed": seed,
        "fold": fold,
        "corpus": data.digest,
        "splits": load_splits().sha256,
        "spec": spec.to_dict(),
        "qat": {"source": hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
    }
    place = {"cache": str(cache), "checkpoint": str(checkpoint), "device": device}
    run = RunFolder(out, {"settings": settings, "place": place}, resume=resume)
    torch.manual_seed(seed)
    learner = QuantisedLearner(model, plan, data, spec, rows, frozen=frozen, device=device)
    return complete_run(run, learner, spec, settings, seed, report, progress)


def plan_tuning(
    protocol: str | Protocol,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
) -> Protocol:
    """What tuning makes of the protocol of a whole training.

    Raises:
        TrainingError: there is no such protocol, or a value is out of range.
    """
    epochs = DEFAULT_EPOCHS if epochs is None else epochs
    plan = customise_protocol(protocol, epochs, batch_size, learning_rate, weight_decay)
    return dataclasses.replace(
        plan,
        learning_rate=plan.learning_rate * (RATE_SHARE if learning_rate is None else 1),
        schedule=Cosine(),
        feature_dropout=0.0,
        ema_decay=None,
    )


class QuantisedLearner(Learner):
    """A learner whose model answers fake-quantised, with the model it began as for a teacher."""

    rank = staticmethod(rank_by_loss)

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
    ) -> None:
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self.teacher_faces = LiveFaces(cache, spec, self.teacher, device)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.requires_grad_(False)
        super().__init__(model, protocol, cache, spec, rows, frozen=frozen, device=device)
        self.quantisation = FakeQuantisation(model)

    def run_epochs(
        self, history: Sequence[Row], seed: int, progress: Progress | None
    ) -> Iterator[Row]:
        """As a learner's, after an epoch 0 in which ranges are observed and nothing is learnt."""
        if not history:
            self._observe(seed)
            yield {"epoch": 0, **describe_validation(self.validate())}
        yield from super().run_epochs(history, seed, progress)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "ranges": self.quantisation.ranges}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.quantisation.ranges = state["ranges"]

    @torch.no_grad()
    def _observe(self, seed: int) -> None:
        """Set the ranges of activations by the float model on the first training batches."""
        generator = np.random.default_rng((seed, 0))
        size = self.protocol.batch_size
        order = generator.permutation(np.asarray(self.train_rows))[: OBSERVED_BATCHES * size]
        self._start_training()
        self.quantisation.observing = True
        for start in range(0, len(order), size):
            rows = order[start : start + size].tolist()
            examples = draw_examples(rows, self.protocol, generator)
            audio = self._hear(self.voices, examples, generator)
            self._classify(self.model, audio, self._encode(self.faces, examples))
        self.quantisation.observing = False

    def _start_training(self) -> None:
        self.model.eval()  # batch statistics stay

    def _encode(self, faces: FaceSource, examples: Sequence[Example]) -> Tensor:
        with nullcontext() if self.frozen_faces else self.quantisation:
            return super()._encode(faces, examples)

    def _classify(self, model: MultimodalNet, audio: Tensor, frames: Tensor) -> Tensor:
        with self.quantisation:
            return super()._classify(model, audio, frames)

    @torch.no_grad()
    def _teach(self, audio: Tensor, frames: Tensor, examples: Sequence[Example]) -> Tensor:
        """The teacher's log-probabilities (B, classes); with a live encoder, from its own."""
        if not self.frozen_faces:
            frames = self.teacher_faces.features(examples)
        return functional.log_softmax(self.teacher.head(audio, frames), dim=-1)

    def _extra_loss(
        self, logits: Tensor, audio: Tensor, frames: Tensor, examples: Sequence[Example]
    ) -> Tensor | float:
        wanted = self._teach(audio, frames, examples)
        answered = functional.log_softmax(logits, dim=-1)
        return functional.kl_div(answered, wanted, reduction="batchmean", log_target=True)


def _find_protocol(notes: Mapping[str, Any]) -> str:
    """The protocol that a checkpoint was trained by, or else the paper's."""
    described = notes.get("protocol")
    name = described.get("name") if isinstance(described, dict) else None
    return name if name in PROTOCOLS else "paper"


def _find_fold(checkpoint: Path, notes: Mapping[str, Any], fold: int | None) -> int | None:
    """The fold to tune on: another than the training's would validate on clips it has learnt."""
    if "fold" not in notes:
        return fold
    trained: int | None = notes["fold"]
    if fold not in (None, trained):
        split = f"fold {trained}" if trained else "the default split"
        raise TrainingError(f"{checkpoint} was trained on {split}: tune it there, not on {fold}")
    return trained
