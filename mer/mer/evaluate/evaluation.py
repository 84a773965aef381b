"""Scores of a checkpoint or a bundle on the clips of a cache."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mer.data.cache import Cache
from mer.data.dataset import read_crops, read_targets
from mer.data.presence import Feed, Presence, choose_feed, make_noise_crops, make_noise_mfcc
from mer.data.splits import Split
from mer.errors import CacheError, CheckpointError
from mer.evaluate.classifier import OpenModel, open_model
from mer.evaluate.comparison import Comparison, compare_logits
from mer.evaluate.confidence import expected_calibration_error
from mer.evaluate.metrics import ClassificationMetrics, Interval, Scores
from mer_runtime.errors import MerWarning
from mer_runtime.feeds import Modality
from mer_runtime.intervals import Interval as MedianInterval
from mer_runtime.intervals import find_interval


@dataclass(frozen=True)
class Evaluation:
    """How a model did on labelled clips; percentages, but ``scores.loss`` in nats.

    ``logits`` (n, classes) and ``targets`` (n,) are in the order of the clips. ``ece`` is the
    expected calibration error (``mer.evaluate.confidence``) at the model's own ``temperature`` for
    such a feed; the loss is that of the logits as they are. ``size`` is of the checkpoint's file or
    the bundle's graphs, in bytes. ``times`` are milliseconds for each clip's faces and answer,
    empty where they weren't taken.
    """

    model: str
    kind: Literal["checkpoint", "bundle"]
    corpus: str  # digest of the cache, or of a folder's labels
    split: Split
    fold: int | None
    feed: Feed
    labels: tuple[str, ...]
    scores: Scores
    ece: float
    temperature: float
    intervals: dict[str, Interval]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    size: int
    times: tuple[float, ...] = ()

    @property
    def latency(self) -> MedianInterval | None:
        """Median of ``times``, milliseconds, with its 95 % interval over clips."""
        return find_interval(self.times) if self.times else None

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
            "modality": self.feed.modality,
            "face": self.feed.face,
            "voice": self.feed.voice,
            "size": self.size,
            "latency": self.latency.to_dict() if self.latency else None,
        }


def evaluate_model(
    model: str | Path,
    cache: str | Path,
    *,
    split: Split = "test",
    fold: int | None = None,
    modality: Modality = "both",
    face: Presence | None = None,
    voice: Presence | None = None,
    num_heads: int | None = None,
    labels: tuple[str, ...] | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a checkpoint file, a bundle folder, or what ships under a name, on a cache.

    Args:
        model, num_heads, labels, device: see ``mer.evaluate.classifier.open_model``.
        modality: ``audio`` feeds black crops, ``video`` zero MFCCs: raw zeros, as for a clip
            that lacks a modality.
        face, voice: ``missing`` as above, ``noise`` puts noise in its place
            (``mer.data.presence``); where given, they go before ``modality``.
        progress: called with (clips done, clips in all).

    Raises:
        CheckpointError, BundleError: the model can't be read, or its answers aren't finite.
        CacheError, CorpusError: the cache can't be read, doesn't suit the model's preprocessing,
            or has no clip in the split.
        MissingModalityError: face and voice are both to be missing.
        TrainingError: there is no such device.
    """
    feed = choose_feed(modality, face, voice)
    data = Cache.open(cache)
    opened = open_model(model, num_heads=num_heads, labels=labels, device=device)
    spec, classifier = opened.spec, opened.classifier
    data.require(spec)
    rows = data.select(split, fold)
    _compare_folds(opened, data, fold)
    targets = read_targets(data, rows, spec)
    logits, times = [], []
    for row in rows:
        told = data.rows[row]
        mfcc: NDArray[np.float32] = np.zeros(spec.audio.shape, np.float32)
        if feed.voice == "noise":
            mfcc = make_noise_mfcc(spec.audio, told.id)
        elif feed.voice == "present":
            mfcc = data.mfcc(row, spec.audio)
        crops = None
        if feed.face == "noise":
            crops = make_noise_crops(spec.video, told.id)
        elif feed.face == "present" and told.has_face:
            crops = read_crops(data, row, spec)
        start = perf_counter()
        features = None if crops is None else classifier.encode(crops)
        logits.append(classifier.classify(mfcc, features))
        times.append(1e3 * (perf_counter() - start))
        if progress:
            progress(len(logits), len(rows))
    scored = score_answers(opened, np.stack(logits), targets, data.digest, feed, split, fold)
    return dataclasses.replace(scored, times=tuple(times))


def _compare_folds(model: OpenModel, data: Cache, fold: int | None) -> None:
    """Warn where clips that are scored have taught the model."""
    taught = model.notes.get("fold")
    if model.notes.get("corpus") != data.digest or taught == fold:
        return
    where, ask = "the default split", "no --fold"
    if taught is not None:
        where, ask = f"fold {taught}", f"--fold {taught}"
    warnings.warn(
        f"{model.name} was trained on {where} of this corpus, so clips that are scored here may "
        f"have taught it: score it with {ask}",
        MerWarning,
        stacklevel=3,
    )


def score_answers(
    model: OpenModel,
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    corpus: str,
    feed: Feed,
    split: Split = "all",
    fold: int | None = None,
) -> Evaluation:
    """Score logits (n, classes) that ``model`` gave for clips of classes ``targets`` (n,).

    Raises:
        CheckpointError: they aren't finite.
    """
    if not np.isfinite(logits).all():
        raise CheckpointError(
            model.name, "some of its answers are not finite: its weights are damaged"
        )
    metrics = ClassificationMetrics(len(model.spec.labels))
    metrics.update(logits, targets)
    temperature = model.temperatures.of(feed.modality)
    return Evaluation(
        model=model.name,
        kind=model.kind,
        corpus=corpus,
        split=split,
        fold=fold,
        feed=feed,
        labels=model.spec.labels,
        scores=metrics.compute(),
        ece=expected_calibration_error(logits, targets, temperature=temperature),
        temperature=temperature,
        intervals=metrics.compute_intervals(),
        logits=logits,
        targets=targets,
        size=model.size,
    )


def compare_models(first: Evaluation, second: Evaluation) -> Comparison:
    """Pair two evaluations clip by clip, classes by name.

    Raises:
        CacheError: they aren't of the same clips and classes.
    """
    for name in ("corpus", "split", "fold", "feed", "labels"):
        one, other = getattr(first, name), getattr(second, name)
        if sorted(one) != sorted(other) if name == "labels" else one != other:
            raise CacheError(
                f"{first.model} and {second.model} can't be compared clip by clip: "
                f"their {name} differ ({one}, {other})"
            )
    order = [second.labels.index(label) for label in first.labels]
    return compare_logits(first.logits, second.logits[:, order], first.targets)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
