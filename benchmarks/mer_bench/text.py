"""Results and comparisons as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mer_bench.comparison import Difference
from mer_bench.subject import MEASURES, TOTAL
from mer_bench.summary import PERCENTILES
from mer_runtime.engines.processor import describe_int8

TIMES = "\N{MULTIPLICATION SIGN}"
#: Marks a percentile of too few samples.
UNRELIABLE = "~"


def render_result(result: Mapping[str, Any]) -> str:
    """Tables of every contender, ratios, and the advice."""
    settings, machine = result["settings"], result["machine"]
    threads = settings["threads"]
    lines = [
        f"{machine['cpu']}, int8 by {describe_int8(machine['flags'])}, "
        f"{threads} thread{'s' * (threads > 1)}, {settings['clip']} "
        f"({settings['clip_seconds']:g} s), faces by {settings['detector']}",
        f"load {_join(machine['before']['load'])} before, {_join(machine['after']['load'])} after",
    ]
    for one in result["contenders"]:
        lines += ["", *_render_contender(one)]
    if result["ratios"]:
        lines.append("")
    for ratio in result["ratios"]:
        lines.append(
            f"{ratio['fast']} against {ratio['slow']}, {ratio['measure']}: "
            f"{ratio['median']:.2f} {TIMES} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        )
    lines += ["", result["advice"]]
    return "\n".join(lines)


def render_comparison(differences: Iterable[Difference]) -> str:
    """A line for each measure of each contender."""
    rows = [("contender", "measure", "before", "after", "ratio", "95 %", "")]
    for one in differences:
        low, high = one.ratio.low, one.ratio.high
        figures = f"{one.before:.2f}", f"{one.after:.2f}", f"{one.ratio.median:.3f}"
        rows.append((one.contender, one.measure, *figures, f"{low:.3f}-{high:.3f}", one.verdict))
    return "\n".join(_align(rows, left=2))


def _render_contender(one: Mapping[str, Any]) -> list[str]:
    stream, offline, start = one["single_stream"], one["offline"], one["start"]
    rows = [("ms", "n", "mean", *(f"p{p}" for p in PERCENTILES))]
    unreliable: set[str] = set()
    for measure in MEASURES:
        if measure not in stream["summary"]:
            continue
        found = stream["summary"][measure]
        cells = []
        for percent in PERCENTILES:
            name = f"p{percent}"
            doubtful = name in found["unreliable"]
            cells.append(f"{UNRELIABLE if doubtful else ''}{found[name]:.2f}")
            unreliable |= {name} if doubtful else set()
        rows.append((measure, str(found["n"]), f"{found['mean']:.2f}", *cells))
    lines = [f"{one['name']}: {one['precision']}, {one['engine']}, answers {one['label']}"]
    lines += [f"  {line}" for line in _align(rows, left=1)]
    if unreliable:
        lines.append(f"  {UNRELIABLE} too few samples for this percentile")
    rate = offline["clips_per_second"]
    lines += [
        f"  single-stream {stream['clips_per_second']:.2f} clips/s, real-time factor "
        f"{stream['real_time_factor']:.4f}; offline {rate['median']:.2f} clips/s "
        f"({rate['low']:.2f} to {rate['high']:.2f})",
        f"  first answer {_seconds([start['first_ms']])} after a first start, "
        f"{_seconds(start['later_ms'])} later, of it loading {_seconds(start['load_ms'])}",
    ]
    sizes = []
    if one["peak_memory_mb"] is not None:
        sizes.append(f"peak memory {one['peak_memory_mb']:.0f} MB")
    if one["bytes"] is not None:
        sizes.append(f"bundle {one['bytes'] / 1e6:.1f} MB")
    cpu, total = stream["summary"]["cpu"]["mean"], stream["summary"][TOTAL]["mean"]
    sizes.append(f"{cpu / total:.2f} cores busy")
    lines.append(f"  {', '.join(sizes)}")
    if one["accuracy"]:
        lines.append(f"  {_render_accuracy(one['accuracy'])}")
    return lines


def _render_accuracy(found: Mapping[str, Any]) -> str:
    low, high = found["intervals"]["prec1"]
    text = f"prec1 {found['prec1']:.2f} % ({low:.1f} to {high:.1f}), prec5 {found['prec5']:.2f} %"
    if found.get("agreement") is not None:
        low, high = found["prec1_difference_interval"]
        text += (
            f", agreement {found['agreement']:.2f} %, prec1 minus the reference's "
            f"{found['prec1_difference']:+.2f} points ({low:+.2f} to {high:+.2f})"
        )
    return f"{text}, {found['n']} clips"


def _align(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns of equal width, the first ``left`` flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if i < left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _seconds(times: Sequence[float]) -> str:
    """One, or the least and the most."""
    low, high = min(times) / 1e3, max(times) / 1e3
    return f"{low:.2f} s" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f} s"


def _join(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
