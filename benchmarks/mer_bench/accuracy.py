"""Accuracy of all contenders on the clips of one cache (extra ``train``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.contender import Entry

if TYPE_CHECKING:
    from mer.data.splits import Split
    from mer.evaluate.evaluation import Evaluation

#: Of an evaluation, what a run's results keep.
KEPT = ("n", "split", "corpus", "prec1", "prec5", "uar", "intervals", "labels", "confusion")


def require_clips(cache: str | Path, split: Split = "test") -> None:
    """Find out whether a cache can be used, before what takes long.

    Raises:
        CacheError, CorpusError: it can't.
    """
    from mer.data.cache import Cache

    Cache.open(cache).select(split)


def measure_accuracy(
    entries: Sequence[Entry], cache: str | Path, split: Split = "test"
) -> dict[str, dict[str, Any]]:
    """By contender's name: ``prec1``, ``prec5``, ``uar`` in percent with their ``intervals``,
    ``confusion`` (classes, classes) by ``labels``, and, where the reference takes part,
    ``agreement`` with it in percent and ``prec1_difference`` in points with its interval.

    Raises:
        CacheError, CorpusError, CheckpointError, BundleError: see ``mer.evaluate``.
    """
    from mer.evaluate.evaluation import evaluate_model

    found = {entry.name: evaluate_model(entry.model, cache, split=split) for entry in entries}
    reference = next((found[one.name] for one in entries if one.kind == "reference"), None)
    return {name: _describe(evaluation, reference) for name, evaluation in found.items()}


def _describe(evaluation: Evaluation, reference: Evaluation | None) -> dict[str, Any]:
    """Scores, and where there is a reference, the comparison clip by clip."""
    from mer.evaluate.evaluation import compare_models

    described = evaluation.to_dict()
    told = {name: described[name] for name in KEPT}
    if reference is None:
        return {**told, "agreement": None}
    return {**told, **compare_models(evaluation, reference).to_dict()}
