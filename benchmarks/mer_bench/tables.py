"""A run's results as tables for a page or a paper, and as points of a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mer_bench.subject import TOTAL, WINDOW
from mer_runtime.intervals import wilson_interval
from mer_runtime.tables import Cell, Figure, Table

if TYPE_CHECKING:
    from mer.evaluate.plots import Point

#: The first column.
MODEL = "model"
#: Measures that a table has, and what it calls them.
MEASURED = {WINDOW: "ms a window", TOTAL: "ms a clip"}


def tabulate_result(result: Mapping[str, Any]) -> list[Table]:
    """Sizes and times of all contenders; with a cache their accuracy, and recall by class."""
    contenders = result["contenders"]
    machine, settings = result["machine"], result["settings"]
    rows: list[dict[str, Cell]] = []
    for one in contenders:
        row: dict[str, Cell] = {
            MODEL: one["name"],
            "engine": one["engine"],
            "numbers": one["precision"],
            "MB": None if one["bytes"] is None else Figure(one["bytes"] / 1e6),
        }
        for measure, heading in MEASURED.items():
            found = one["single_stream"]["summary"].get(measure)
            row[heading] = None if found is None else _figure(found["median_interval"])
        memory = one["peak_memory_mb"]
        row["peak MB"] = None if memory is None else Figure(memory, digits=0)
        rows.append(row)
    tables = [
        Table(
            "Size and time",
            rows,
            f"{machine['cpu']}, {settings['threads']} threads, {settings['clip']}, "
            f"{settings['seconds']:g} s each by turns; medians, 95 %.",
        )
    ]
    scored = [one for one in contenders if one["accuracy"]]
    if scored:
        tables += _tabulate_accuracy(contenders)
    return tables


def list_points(result: Mapping[str, Any]) -> list[Point]:
    """Prec1 against a window's time; empty where no accuracy was measured."""
    from mer.evaluate.plots import Point

    points = []
    for one in result["contenders"]:
        found = one["single_stream"]["summary"].get(WINDOW)
        if not one["accuracy"] or found is None:
            continue
        times = found["median_interval"]
        low, high = one["accuracy"]["intervals"]["prec1"]
        prec1 = one["accuracy"]["prec1"]
        times_interval = (times["low"], times["high"])
        points.append(Point(one["name"], prec1, (low, high), times["median"], times_interval))
    return points


def _tabulate_accuracy(contenders: list[Mapping[str, Any]]) -> list[Table]:
    accuracies = {one["name"]: one["accuracy"] for one in contenders}
    labels = next(iter(accuracies.values()))["labels"]
    paired = any(found.get("agreement") is not None for found in accuracies.values())
    rows: list[dict[str, Cell]] = []
    recalls: list[dict[str, Cell]] = []
    for name, found in accuracies.items():
        row: dict[str, Cell] = {MODEL: name}
        for score in ("prec1", "prec5", "uar"):
            low, high = found["intervals"][score]
            row[f"{score}, %"] = Figure(found[score], (low, high))
        if paired:
            low, high = found["prec1_difference_interval"]
            row["Δprec1"] = Figure(found["prec1_difference"], (low, high), signed=True)
            row["agree, %"] = Figure(found["agreement"])
            row["only it"], row["only the reference"] = found["only_a"], found["only_b"]
            row["p"] = Figure(found["mcnemar_p"], digits=3)
        rows.append(row)
        recall: dict[str, Cell] = {MODEL: name}
        for label in labels:
            at = found["labels"].index(label)
            counts = found["confusion"][at]
            right, clips = counts[at], sum(counts)
            share = 100 * right / max(clips, 1)
            recall[label] = Figure(share, wilson_interval(right, clips)) if clips else None
        recalls.append(recall)
    first = next(iter(accuracies.values()))
    note = f"{first['n']} clips, split {first['split']}; 95 %."
    if paired:
        note += (
            " Paired with the float reference: points of prec1, same answers, clips that one "
            "alone answers rightly, exact McNemar test."
        )
    return [Table("Accuracy", rows, note), Table("Recall by class, %", recalls)]


def _figure(found: Mapping[str, float]) -> Figure:
    return Figure(found["median"], (found["low"], found["high"]), digits=1)
