"""Scores of a checkpoint or a bundle on the clips of a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from mer.augmentation import Example, FaceView
from mer.cache import Cache
from mer.checkpoint import load_checkpoint
from mer.comparison import Comparison, compare_logits
from mer.confidence import expected_calibration_error
from mer.dataset import LiveFaces, Voices, read_crops, read_targets, require_device
from mer.errors import CacheError, CheckpointError
from mer.metrics import ClassificationMetrics, Interval, Scores
from mer.models import MultimodalNet, Standardiser
from mer.splits import Split
from mer_runtime.recognizer import Recognizer
from mer_runtime.spec import Spec

Modality = Literal["audio", "video", "both"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

#: Clips that go through a checkpoint at once; a bundle takes one.
BATCH_CLIPS = 4

#: Examples (rows of a cache, a modality possibly missing) to logits (N, classes).
Answer = Callable[[Sequence[Example]], NDArray[np.float32]]


@dataclass(frozen=True)
class Evaluation:
    """How a model did on a part of a cache; percentages, but ``scores.loss`` in nats.

    ``logits`` (n, classes) and ``targets`` (n,) are in the order of the cache's rows. ``ece`` is
    the expected calibration error (``mer.confidence``) at the model's own ``temperature``; the
    loss is that of the logits as they are.
    """

    model: str
    kind: Literal["checkpoint", "bundle"]
    corpus: str  # the cache's digest
    split: Split
    fold: int | None
    modality: Modality
    labels: tuple[str, ...]
    scores: Scores
    ece: float
    temperature: float
    intervals: dict[str, Interval]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-eval --json`` prints."""
        scores = self.scores
        return {
            "n": scores.n,
            "loss": round(scores.loss, 6),
            **{name: round(getattr(scores, name), 4) for name in ("prec1", "prec5", "uar")},
            "ece": round(self.ece, 4),
            "temperature": self.temperature,
            "intervals": {
                name: [round(low, 4), round(high, 4)]
                for name, (low, high) in self.intervals.items()
            },
            "per_class": {
                label: {
                    "n": one.n,
                    "recall": _rounded(one.recall),
                    "precision": _rounded(one.precision),
                    "f1": _rounded(one.f1),
                }
                for label, one in zip(self.labels, scores.per_class, strict=True)
            },
            "labels": list(self.labels),
            "confusion": scores.confusion.tolist(),
            "model": self.model,
            "kind": self.kind,
            "corpus": self.corpus,
            "split": self.split,
            "fold": self.fold,
            "modality": self.modality,
        }


def evaluate_model(
    model: Path,
    cache: Path,
    *,
    split: Split = "test",
    fold: int | None = None,
    modality: Modality = "both",
    num_heads: int | None = None,
    labels: tuple[str, ...] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a checkpoint file or a bundle folder.

    Args:
        modality: ``audio`` feeds black crops, ``video`` zero MFCCs: raw zeros, as for a clip
            that lacks a modality.
        num_heads, labels: for a foreign checkpoint (see ``mer.load_checkpoint``).
        device: for a checkpoint; a bundle runs on its own engine.
        progress: called with (clips done, clips in all).

    Raises:
        CheckpointError, BundleError: the model can't be read, or its answers aren't finite.
        CacheError, CorpusError: the cache can't be read, doesn't suit the model's preprocessing,
            or has no clip in the split.
        TrainingError: there is no such device.
    """
    require_device(device)
    data = Cache.open(cache)
    kind: Literal["checkpoint", "bundle"] = "bundle" if model.is_dir() else "checkpoint"
    if kind == "bundle":
        recognizer = Recognizer.load(model)
        spec, temperature = recognizer.spec, recognizer.bundle.temperature
        answer = answer_with_bundle(recognizer, data)
    else:
        checkpoint = load_checkpoint(model, num_heads=num_heads, labels=labels)
        spec, temperature = checkpoint.spec, checkpoint.temperature
        answer = answer_with_network(checkpoint.model.to(device), spec, data, device)
    data.require(spec)
    rows = data.select(split, fold)
    targets = read_targets(data, rows, spec)
    voice, light = float(modality != "video"), float(modality != "audio")
    examples = [Example(row, voice, FaceView(light=light)) for row in rows]
    metrics = ClassificationMetrics(len(spec.labels))
    logits = []
    for start in range(0, len(examples), BATCH_CLIPS):
        batch = slice(start, start + BATCH_CLIPS)
        logits.append(answer(examples[batch]))
        metrics.update(logits[-1], targets[batch])
        if progress:
            progress(min(start + BATCH_CLIPS, len(examples)), len(examples))
    answers = np.concatenate(logits)
    if not np.isfinite(answers).all():
        raise CheckpointError(model, "some of its answers are not finite: its weights are damaged")
    return Evaluation(
        model=str(model),
        kind=kind,
        corpus=data.digest,
        split=split,
        fold=fold,
        modality=modality,
        labels=spec.labels,
        scores=metrics.compute(),
        ece=expected_calibration_error(answers, targets, temperature=temperature),
        temperature=temperature,
        intervals=metrics.compute_intervals(),
        logits=answers,
        targets=targets,
    )


def compare_models(first: Evaluation, second: Evaluation) -> Comparison:
    """Pair two evaluations clip by clip.

    Raises:
        CacheError: they aren't of the same clips and classes.
    """
    told = ("corpus", "split", "fold", "modality", "labels")
    for name in told:
        if getattr(first, name) != getattr(second, name):
            raise CacheError(
                f"{first.model} and {second.model} can't be compared clip by clip: "
                f"their {name} differ ({getattr(first, name)}, {getattr(second, name)})"
            )
    return compare_logits(first.logits, second.logits, first.targets)


def answer_with_network(model: MultimodalNet, spec: Spec, cache: Cache, device: str) -> Answer:
    """A float model, in eval mode, on a cache."""
    faces, voices = LiveFaces(cache, spec, model, device), Voices(cache, spec.audio)
    standardiser = Standardiser(spec).to(device)
    unused = np.random.default_rng(0)  # nothing is augmented

    @torch.inference_mode()
    def answer(examples: Sequence[Example]) -> NDArray[np.float32]:
        audio = standardiser.audio(voices.mfcc(examples, unused).to(device))
        logits: NDArray[np.float32] = model.head(audio, faces.features(examples)).cpu().numpy()
        return logits

    return answer


def answer_with_bundle(recognizer: Recognizer, cache: Cache) -> Answer:
    """A bundle on a cache, one clip at a time as on a device."""
    spec = recognizer.spec
    voices = Voices(cache, spec.audio)
    unused = np.random.default_rng(0)  # nothing is augmented

    def answer(examples: Sequence[Example]) -> NDArray[np.float32]:
        logits = []
        for example in examples:
            crops = read_crops(cache, example.row, spec) if example.face.light else None
            (mfcc,) = voices.mfcc([example], unused).numpy()
            logits.append(recognizer.infer(mfcc, crops))
        return np.stack(logits)

    return answer


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
