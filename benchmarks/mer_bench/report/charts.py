"""The report's charts: accuracy against latency, stages, distributions, layers, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mer_bench.report.marks import (
    MARGIN,
    ROW,
    Axis,
    box,
    chart,
    choose_ticks,
    legend,
    line,
    shape,
    text,
)
from mer_bench.subject import STAGES, TOTAL

Contender = Mapping[str, Any]
#: Bins of a distribution.
BINS = 60
#: Colours there are; more contenders begin again.
COLOURS = 8


def draw_front(contenders: Sequence[Contender]) -> str:
    """prec1 with its interval against p90, from p50 to p99, and the Pareto front."""
    points = [(_p(one, 90), one["accuracy"]["prec1"]) for one in contenders]
    intervals = [one["accuracy"]["intervals"]["prec1"] for one in contenders]
    lows, highs = ([float(interval[end]) for interval in intervals] for end in (0, 1))
    height, top, bottom, left = 330.0, 20.0, 280.0, 60.0
    axis = Axis(0, 1.1 * max(_p(one, 99) for one in contenders), left)
    low, high = max(0.0, min(lows) - 2), min(100.0, max(highs) + 2)

    def level(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    parts = [axis.draw(bottom, "ms", top)]
    for value in choose_ticks(low, high, 5):
        parts.append(line(left, level(value), axis.right, level(value), "grid"))
        parts.append(text(left - 8, level(value) + 4, f"{value:g} %", "tick", "end"))
    front = find_front(points)
    corners = []
    for before, after in zip([None, *front], front, strict=False):
        if before is not None:
            corners.append((axis.place(points[after][0]), level(points[before][1])))
        corners.append((axis.place(points[after][0]), level(points[after][1])))
    corners.append((axis.right, corners[-1][1]))
    parts.append(shape(corners, "front"))
    for i, (one, (x, y)) in enumerate(zip(contenders, points, strict=True)):
        kind = f"s{i % COLOURS}"
        across, up = axis.place(x), level(y)
        parts.append(line(axis.place(_p(one, 50)), up, axis.place(_p(one, 99)), up, kind))
        parts.append(line(across, level(lows[i]), across, level(highs[i]), kind))
        told = f"{one['name']}: p90 {x:.1f} ms, prec1 {y:.1f} %"
        parts.append(
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="6" class="c{i % COLOURS}">'
            f"<title>{escape(told)}</title></circle>"
        )
    names = {f"c{i % COLOURS}": one["name"] for i, one in enumerate(contenders)}
    described = "accuracy against latency with the Pareto front"
    return legend({**names, "dash": "Pareto front"}) + chart(height, "".join(parts), described)


def find_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Who is neither slower and no more right, nor less right and no faster, than another.

    Args:
        points: (latency, accuracy) of each.

    Returns:
        Places in ``points``, the fastest first.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def draw_stages(contenders: Sequence[Contender]) -> str:
    """Mean of each stage, one after the other."""
    taken = [{stage: _mean(one, stage) for stage in STAGES} for one in contenders]
    most = max(sum(each.values()) for each in taken)
    return _draw_stacked(contenders, STAGES, taken, most, "time of each stage")


def draw_distributions(contenders: Sequence[Contender]) -> str:
    """How often a clip took how long, end to end; every time is a stroke below its curve."""
    samples = [_samples(one) for one in contenders]
    axis = Axis(min(map(min, samples)) * 0.95, max(map(max, samples)) * 1.02)
    tall = 1.6 * ROW
    bottom = 10.0 + tall * len(contenders)
    edges = np.linspace(axis.low, axis.high, BINS + 1)
    parts = [axis.draw(bottom, "ms")]
    for row, (one, times) in enumerate(zip(contenders, samples, strict=True)):
        base = tall * (row + 1) - 4
        counts, _ = np.histogram(times, edges)
        scale = (tall - 26) / counts.max()
        points = [(axis.place(edges[0]), base)]
        for k, count in enumerate(counts):
            up = base - float(count) * scale
            points += [(axis.place(edges[k]), up), (axis.place(edges[k + 1]), up)]
        points.append((axis.place(edges[-1]), base))
        parts.append(_name(one, base - 20))
        parts.append(shape(points, f"c{row % COLOURS} area"))
        parts += [
            line(x, base + 1, x, base + 7, f"s{row % COLOURS} thin") for x in map(axis.place, times)
        ]
        for percent in (50, 90, 99):
            x = axis.place(_p(one, percent))
            parts.append(line(x, base - tall + 26, x, base, "mark"))
            parts.append(text(x + 2, base - tall + 24, f"p{percent}", "tick"))
    return chart(bottom + 24, "".join(parts), "distribution of latencies, end to end")


def draw_families(contenders: Sequence[Contender]) -> str:
    """Time of a window by what its layers do."""
    shown = [one for one in contenders if one["profile"]]
    taken = [one["profile"]["families"] for one in shown]
    names = sorted({name for families in taken for name in families})
    most = max(one["profile"]["milliseconds"] for one in shown)
    return _draw_stacked(shown, names, taken, most, "time by family of layers")


def _draw_stacked(
    contenders: Sequence[Contender],
    names: Sequence[str],
    taken: Sequence[Mapping[str, float]],
    most: float,
    title: str,
) -> str:
    """A bar a contender: its milliseconds by name, one after the other."""
    axis = Axis(0, 1.05 * most)
    bottom = 10.0 + ROW * len(contenders)
    parts = [axis.draw(bottom, "ms")]
    for row, (one, each) in enumerate(zip(contenders, taken, strict=True)):
        y, done = 10.0 + ROW * row, 0.0
        parts.append(_name(one, y + 22))
        for number, name in enumerate(names):
            long = each.get(name, 0.0)
            x = axis.place(done)
            wide = axis.place(done + long) - x
            parts.append(box(x, y + 6, wide, ROW - 16, f"c{number}", f"{name} {long:.2f} ms"))
            if wide > 40:
                parts.append(text(x + wide / 2, y + 26, f"{long:.1f}", "inside", "middle"))
            done += long
        parts.append(text(axis.place(done) + 6, y + 26, f"{done:.1f}", "tick"))
    colours = {f"c{number}": name for number, name in enumerate(names)}
    return legend(colours) + chart(bottom + 24, "".join(parts), title)


def draw_confusion(contender: Contender) -> str:
    """A table of counts, true class by row, shaded by its share of the row."""
    accuracy = contender["accuracy"]
    labels, counts = accuracy["labels"], np.array(accuracy["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col"><span>{escape(label)}</span></th>' for label in labels)
    rows = []
    for label, row, part in zip(labels, counts.tolist(), shares.tolist(), strict=True):
        cells = "".join(
            f'<td style="--share:{share:.3f}"{" class=full" if share > 0.5 else ""}>{count}</td>'
            for count, share in zip(row, part, strict=True)
        )
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        f'<figure class="confusion"><figcaption>{escape(contender["name"])}, '
        f"prec1 {accuracy['prec1']:.1f} %</figcaption>"
        f'<div class="table"><table><thead><tr><th scope="col">true, answered</th>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div></figure>"
    )


def _name(one: Contender, y: float) -> str:
    name = one["name"]
    short = name if len(name) <= 17 else f"…{name[-16:]}"
    return text(MARGIN - 10, y + 4, short, "name", "end")


def _samples(one: Contender) -> list[float]:
    return [time for turn in one["single_stream"]["times"][TOTAL] for time in turn]


def _p(one: Contender, percent: int) -> float:
    return float(one["single_stream"]["summary"][TOTAL][f"p{percent}"])


def _mean(one: Contender, stage: str) -> float:
    return float(one["single_stream"]["summary"].get(stage, {"mean": 0.0})["mean"])
