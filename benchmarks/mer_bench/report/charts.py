"""The report's charts: accuracy against latency, distributions, stages, layers.

matplotlib draws them as SVG, which becomes part of the page and takes its colours, light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_bench.extras import require
from mer_bench.subject import STAGES, TOTAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Contender = Mapping[str, Any]
#: Bins of a distribution.
BINS = 60
#: Colours there are; more contenders begin again.
COLOURS = [f"c{number}" for number in range(8)]
#: The page's variables for colours, by what is drawn in their place.
PAGE = {
    f"#0000{number:02x}": f"var(--{name})"
    for number, name in enumerate(("ink", "dim", "rule", "inside", *COLOURS), start=1)
}
INK, DIM, RULE, INSIDE, *SERIES = PAGE
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.sans-serif": ["DejaVu Sans"],  # else every text names ten more
    "text.color": INK,
    "axes.labelcolor": DIM,
    "xtick.color": DIM,
    "ytick.color": DIM,
    "xtick.labelcolor": DIM,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.left": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.constrained_layout.use": True,
}
#: Inches: a chart's width, and a contender's row.
WIDTH, ROW = 8.1, 0.5


def use_style() -> AbstractContextManager[None]:
    """What the functions below are to be called in.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    require("matplotlib", "report", "the report")
    import matplotlib

    return matplotlib.rc_context(STYLE)


def draw_front(contenders: Sequence[Contender]) -> str:
    """prec1 with its interval against p90, from p50 to p99, and the Pareto front."""
    points = [(_p(one, 90), float(one["accuracy"]["prec1"])) for one in contenders]
    intervals = [one["accuracy"]["intervals"]["prec1"] for one in contenders]
    axes = _open(3.5)
    axes.grid(axis="y")
    right = 1.1 * max(_p(one, 99) for one in contenders)
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    axes.set(xlim=(0, right), ylim=(max(0, low - 2), min(100, high + 2)), ylabel="prec1, %")
    front = [points[place] for place in find_front(points)]
    steps = [*front, (right, front[-1][1])]
    axes.step(*zip(*steps, strict=True), where="post", linestyle="--", color=DIM)
    told = {}
    for i, (one, (x, y)) in enumerate(zip(contenders, points, strict=True)):
        colour, mark = SERIES[i % len(SERIES)], f"point-{i}"
        axes.hlines(y, _p(one, 50), _p(one, 99), color=colour)
        axes.vlines(x, *intervals[i], color=colour)
        axes.plot(x, y, "o", color=colour, markersize=8, gid=mark)
        told[mark] = f"{one['name']}: p90 {x:.1f} ms, prec1 {y:.1f} %"
    names = {COLOURS[i % len(COLOURS)]: one["name"] for i, one in enumerate(contenders)}
    described = "accuracy against latency with the Pareto front"
    return _legend({**names, "dash": "Pareto front"}) + _finish(axes, described, told)


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


def draw_distributions(contenders: Sequence[Contender]) -> str:
    """How often a clip took how long, end to end; every time is a stroke below its curve."""
    samples = [
        [t for turn in one["single_stream"]["times"][TOTAL] for t in turn] for one in contenders
    ]
    axes = _open(1.6 * ROW * len(contenders))
    low, high = min(map(min, samples)) * 0.95, max(map(max, samples)) * 1.02
    edges = np.linspace(low, high, BINS + 1)
    for row, (one, times) in enumerate(zip(contenders, samples, strict=True)):
        colour, base = SERIES[row % len(SERIES)], -float(row)
        counts, _ = np.histogram(times, edges)
        heights = base + 0.65 * counts / counts.max()
        axes.stairs(heights, edges, baseline=base, fill=True, color=colour, alpha=0.55)
        axes.plot(times, [base - 0.07] * len(times), "|", color=colour, gid=f"times-{row}")
        for percent in (50, 90, 99):
            x = _p(one, percent)
            axes.vlines(x, base, base + 0.65, color=INK, linestyle=":", linewidth=1)
            axes.text(x, base + 0.68, f"p{percent}", color=DIM, fontsize="small")
    axes.set(xlim=(low, high), ylim=(0.8 - len(contenders), 0.85))
    axes.set_yticks([0.3 - row for row in range(len(contenders))], _names(contenders))
    return _finish(axes, "distribution of latencies, end to end")


def draw_stages(contenders: Sequence[Contender]) -> str:
    """Mean of each stage, one after the other."""
    summaries = [one["single_stream"]["summary"] for one in contenders]
    taken = [{stage: s[stage]["mean"] for stage in STAGES if stage in s} for s in summaries]
    return _draw_stacked(contenders, STAGES, taken, "time of each stage")


def draw_families(contenders: Sequence[Contender]) -> str:
    """Time of a window by what its layers do."""
    shown = [one for one in contenders if one["profile"]]
    taken = [one["profile"]["families"] for one in shown]
    names = sorted({name for families in taken for name in families})
    return _draw_stacked(shown, names, taken, "time by family of layers")


def _draw_stacked(
    contenders: Sequence[Contender],
    names: Sequence[str],
    taken: Sequence[Mapping[str, float]],
    described: str,
) -> str:
    """A bar a contender: its milliseconds by name, one after the other."""
    axes = _open(ROW * len(contenders))
    right = 1.08 * max(sum(each.values()) for each in taken)
    told = {}
    for row, each in enumerate(taken):
        done = 0.0
        for number, name in enumerate(names):
            long, mark = each.get(name, 0.0), f"bar-{row}-{number}"
            axes.barh(row, long, 0.65, done, color=SERIES[number % len(SERIES)], gid=mark)
            told[mark] = f"{name} {long:.2f} ms"
            if long > right / 15:
                axes.text(
                    done + long / 2, row, f"{long:.1f}", color=INSIDE, ha="center", va="center"
                )
            done += long
        axes.text(done + right / 150, row, f"{done:.1f}", color=DIM, va="center")
    axes.set(xlim=(0, right), ylim=(len(taken) - 0.5, -0.5))
    axes.set_yticks(range(len(taken)), _names(contenders))
    colours = {COLOURS[number % len(COLOURS)]: name for number, name in enumerate(names)}
    return _legend(colours) + _finish(axes, described, told)


def _open(height: float) -> Axes:
    """Axes in a figure; ``height`` in inches, without what stands below the axis."""
    from matplotlib.figure import Figure  # without pyplot and its global state

    axes = Figure((WIDTH, height + 0.6)).add_subplot()
    axes.set_xlabel("ms", loc="right")
    return axes


def _finish(axes: Axes, described: str, told: Mapping[str, str] | None = None) -> str:
    """The drawing in a box that scrolls by itself where the page is narrower than it needs.

    Args:
        told: by an artist's ``gid``, what shows when one points at it.
    """
    figure, file = axes.get_figure(root=True), io.StringIO()
    assert figure is not None
    for artist in figure.findobj():
        artist.set_clip_on(False)  # nothing leaves the axes, and the page needs no references
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    drawn = file.getvalue()
    drawn = re.sub(
        r' (xmlns(:xlink)?|width|height)="[^"]*"', "", drawn[drawn.index("<svg") :], count=4
    )
    drawn = re.sub(r"#0000[0-9a-f]{2}", lambda found: PAGE[found[0]], drawn)
    for mark, title in (told or {}).items():
        start = f'<g id="{mark}">'
        drawn = drawn.replace(start, f"{start}<title>{escape(title)}</title>", 1)
    label = f'<svg role="img" aria-label="{escape(described)}"'
    return f'<div class="chart" tabindex="0">{drawn.replace("<svg", label, 1)}</div>'


def _legend(names: Mapping[str, str]) -> str:
    """Names by the class that colours them."""
    items = (f'<li><i class="{kind}"></i>{escape(name)}</li>' for kind, name in names.items())
    return f'<ul class="legend">{"".join(items)}</ul>'


def _names(contenders: Sequence[Contender]) -> list[str]:
    names = [str(one["name"]) for one in contenders]
    return [name if len(name) <= 17 else f"…{name[-16:]}" for name in names]


def _p(one: Contender, percent: int) -> float:
    return float(one["single_stream"]["summary"][TOTAL][f"p{percent}"])
