"""Evaluations side by side, as tables for a page or a paper."""

from __future__ import annotations

from collections.abc import Sequence

from mer.evaluate.evaluation import Evaluation, compare_models
from mer_runtime.intervals import wilson_interval
from mer_runtime.tables import Cell, Figure, Table

#: The first column.
MODEL = "model"


def tabulate(evaluations: Sequence[Evaluation]) -> list[Table]:
    """How right models are, and their recall by class; each is paired with the first.

    Raises:
        CacheError: they aren't of the same clips and classes.
    """
    first, *others = evaluations
    paired = [None, *(compare_models(other, first) for other in others)]
    rows: list[dict[str, Cell]] = []
    for one, against in zip(evaluations, paired, strict=True):
        scores, latency = one.scores, one.latency
        row: dict[str, Cell] = {MODEL: one.model}
        for name in ("prec1", "prec5", "uar"):
            row[f"{name}, %"] = Figure(getattr(scores, name), one.intervals[name])
        row["ECE, %"] = Figure(one.ece)
        row["MB"] = Figure(one.size / 1e6)
        if latency is not None:
            row["ms a window"] = Figure(latency.median, (latency.low, latency.high), digits=1)
        if others:
            row |= dict.fromkeys(("Δprec1", "agree, %", "only it", "only the first", "p"))
        if against is not None:
            row["Δprec1"] = Figure(against.prec1_difference, against.interval, signed=True)
            row["agree, %"] = Figure(against.agreement)
            row["only it"], row["only the first"] = against.only_a, against.only_b
            row["p"] = Figure(against.mcnemar_p, digits=3)
        rows.append(row)
    note = f"{first.scores.n} clips, split {first.split}, fed with {first.feed.modality}; 95 %."
    if others:
        note += (
            f" Paired with {first.model}: points of prec1, same answers, clips that one alone "
            "answers rightly, exact McNemar test."
        )
    if first.latency is not None:
        note += " Times are of this run, one model after the other: mer-bench takes turns."
    return [
        Table("Accuracy", rows, note),
        Table("Recall by class, %", [_list_recalls(one, first.labels) for one in evaluations]),
    ]


def _list_recalls(one: Evaluation, labels: Sequence[str]) -> dict[str, Cell]:
    row: dict[str, Cell] = {MODEL: one.model}
    for label in labels:
        counts = one.scores.confusion[one.labels.index(label)]
        right, clips = int(counts[one.labels.index(label)]), int(counts.sum())
        row[label] = Figure(100 * right / clips, wilson_interval(right, clips)) if clips else None
    return row
