"""The page around the charts: advice, figures, facts of the device, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from mer_bench.advice import list_cautions
from mer_bench.report.charts import (
    draw_distributions,
    draw_families,
    draw_front,
    draw_stages,
    use_style,
)
from mer_bench.subject import MEASURES
from mer_bench.summary import PERCENTILES, count_needed
from mer_runtime.engines.processor import describe_int8

Contender = Mapping[str, Any]
TIMES = "\N{MULTIPLICATION SIGN}"


def render_report(result: Mapping[str, Any]) -> str:
    """One HTML document from a run's results (see ``mer_bench.result``).

    Raises:
        MissingExtraError: matplotlib isn't installed (extra ``report``).
    """
    contenders = result["contenders"]
    style = resources.files("mer_bench.report").joinpath("style.css").read_text("utf-8")
    with use_style():
        parts = [
            _header(result),
            _front(contenders),
            _section(
                "Distribution of latencies",
                draw_distributions(contenders),
                "A clip from its file to its answer. Each stroke is one time; none is left out.",
            ),
            _section(
                "Stages",
                draw_stages(contenders),
                "Means, one stage after the other. End to end the search for faces runs beside the "
                "decoding where there are threads for it, so the sum may be more than the total.",
            ),
            _layers(contenders),
            _figures(contenders),
            *_ratios(result["ratios"]),
            *_confusions(contenders),
            _facts(result),
            _method(result["settings"]),
        ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<title>mer-bench</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n"
        "</body>\n</html>\n"
    )


def _header(result: Mapping[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    threads = settings["threads"]
    told = (
        f"{machine['cpu']}, {threads} thread{'s' * (threads > 1)} · {settings['clip']} "
        f"({settings['clip_seconds']:g} s) · {result['date']} · {result['made_by']}"
    )
    cautions = "".join(f'<p class="caveat">{escape(one)}</p>' for one in list_cautions(result))
    return (
        f"<header><h1>mer-bench</h1><p>{escape(told)}</p>"
        f'<p class="advice">{escape(result["advice"])}</p>{cautions}</header>'
    )


def _front(contenders: Sequence[Contender]) -> str:
    title = "Accuracy against latency"
    if not all(one["accuracy"] for one in contenders):
        return _section(title, "", "Not measured: mer-bench --cache CACHE measures it.")
    note = (
        "prec1 with its 95 % interval against p90 end to end, the line from p50 to p99. Who "
        "stands on the front is beaten by nobody in both."
    )
    return _section(title, draw_front(contenders), note)


def _layers(contenders: Sequence[Contender]) -> str:
    title = "Layers, float against int8"
    shown = [one for one in contenders if one["profile"]]
    if not shown:
        return _section(title, "", "No engine here tells the time of its layers.")
    details = "".join(
        f"<details><summary>{escape(one['name'])}: the slowest of {one['profile']['count']} "
        "layers</summary>"
        + _table(
            ["layer", "graph", "kind", "ms a window"],
            [
                [layer["name"], layer["graph"], layer["kind"], f"{layer['milliseconds']:.3f}"]
                for layer in one["profile"]["layers"]
            ],
        )
        + "</details>"
        for one in shown
    )
    note = (
        "The model alone, as the engine's profiler counts a window; profiling itself takes time. "
        "Engines fuse and rename layers, so they are compared by what they do."
    )
    return _section(title, draw_families(contenders) + details, note)


def _figures(contenders: Sequence[Contender]) -> str:
    heads = ["", "n", "mean", *(f"p{p}" for p in PERCENTILES)]
    parts = []
    for one in contenders:
        rows = []
        summary = one["single_stream"]["summary"]
        for measure in (m for m in MEASURES if m in summary):
            found = summary[measure]
            cells = [
                f"{'~' if f'p{p}' in found['unreliable'] else ''}{found[f'p{p}']:.2f}"
                for p in PERCENTILES
            ]
            rows.append([measure, str(found["n"]), f"{found['mean']:.2f}", *cells])
        about = f"{one['precision']}, {one['engine']}, answers {one['label']}"
        parts.append(
            f"<div><h3>{escape(one['name'])}</h3><p>{escape(about)}</p>{_table(heads, rows)}"
            f'<div class="rest">{_table(["", ""], _list_rest(one))}</div></div>'
        )
    needed = ", ".join(f"p{p} {count_needed(p)}" for p in PERCENTILES)
    note = (
        "Milliseconds, single-stream. ~ marks a percentile of too few samples "
        f"(needed: {needed}). window is encoder and head; cpu is processor time over all threads."
    )
    return _wide("Figures", f'<div class="grid-of">{"".join(parts)}</div>', note)


def _list_rest(one: Contender) -> list[list[str]]:
    stream, offline, start = one["single_stream"], one["offline"], one["start"]
    rate, later = offline["clips_per_second"], start["later_ms"]
    rows = [
        ["single-stream", f"{stream['clips_per_second']:.2f} clips/s"],
        ["real-time factor", f"{stream['real_time_factor']:.4f}"],
        [
            "offline",
            f"{rate['median']:.2f} clips/s ({rate['low']:.2f} to {rate['high']:.2f}), "
            f"{offline['times_real_time']:.1f} {TIMES} real time",
        ],
        ["first start to answer", f"{start['first_ms'] / 1e3:.2f} s"],
        ["later starts to answer", ", ".join(f"{t / 1e3:.2f}" for t in later) + " s"],
        ["of it loading", ", ".join(f"{t / 1e3:.2f}" for t in start["load_ms"]) + " s"],
    ]
    if one["peak_memory_mb"] is not None:
        rows.append(["peak memory", f"{one['peak_memory_mb']:.0f} MB"])
    if one["bytes"] is not None:
        rows.append(["bundle", f"{one['bytes'] / 1e6:.1f} MB"])
    accuracy = one["accuracy"]
    if accuracy:
        for name in ("prec1", "prec5"):
            low, high = accuracy["intervals"][name]
            rows.append([name, f"{accuracy[name]:.2f} % ({low:.1f} to {high:.1f})"])
        if accuracy.get("agreement") is not None:
            low, high = accuracy["prec1_difference_interval"]
            rows.append(["agreement", f"{accuracy['agreement']:.2f} % of {accuracy['n']} clips"])
            told = f"{accuracy['prec1_difference']:+.2f} points ({low:+.2f} to {high:+.2f})"
            rows.append(["prec1 minus the reference's", told])
    return rows


def _ratios(ratios: Sequence[Mapping[str, Any]]) -> list[str]:
    if not ratios:
        return []
    rows = [
        [
            f"{ratio['fast']} against {ratio['slow']}",
            ratio["measure"],
            f"{ratio['median']:.2f} {TIMES}",
            f"{ratio['low']:.2f} to {ratio['high']:.2f}",
        ]
        for ratio in ratios
    ]
    content = _table(["", "measure", "times as fast", "95 %"], rows)
    note = "Medians of turns; intervals by bootstrap over turns that both took one after the other."
    return [_wide("Ratios", content, note)]


def _confusions(contenders: Sequence[Contender]) -> list[str]:
    shown = [one for one in contenders if one["accuracy"]]
    if not shown:
        return []
    content = f'<div class="grid-of">{"".join(map(_confusion, shown))}</div>'
    return [_wide("Confusion matrices", content, "Clips by true class (row) and answer (column).")]


def _confusion(contender: Contender) -> str:
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


def _facts(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    plain = ("cpu", "board", "gpu", "cores", "cores_in_all", "memory_mb", "governor", "power_mode")
    rows = [[name.replace("_", " "), str(machine[name])] for name in plain]
    rows.append(["flags", ", ".join(machine["flags"]) or "none of those that matter"])
    rows.append(["int8 by", describe_int8(machine["flags"])])
    rows += [[name, machine[name]] for name in ("system", "kernel", "python")]
    rows += [[name, version] for name, version in machine["versions"].items() if version]
    for when in ("before", "after"):
        state = machine[when]
        rows.append([f"load {when}", ", ".join(map(str, state["load"])) or "unknown"])
        heat = state["temperature"]
        told = (
            heat if isinstance(heat, str) else ", ".join(f"{n} {t:g} °C" for n, t in heat.items())
        )
        rows.append([f"temperature {when}", told])
    return _section("Device", f'<div class="facts">{_table(["", ""], rows)}</div>')


def _method(settings: Mapping[str, Any]) -> str:
    cores = ", ".join(map(str, settings["cores"])) or "any"
    told = [
        f"Every contender has a process of its own with {settings['threads']} threads, bound to "
        f"the same cores ({cores}), and they take turns, so that drift hits all alike.",
        f"Starts: a first one with nothing prepared, then {settings['starts']} more. Files are in "
        "the system's cache by then.",
        "Single-stream: a turn is a query that doesn't count, to wake threads and caches, and "
        f"{settings['burst']} that do. The first {settings['warm_up_turns']} turn doesn't count.",
        f"Offline: a copy of the model with one thread on each core, {settings['offline_batch']} "
        f"clips each a turn; the first {settings['warm_up_turns']} turn doesn't count.",
        f"Each mode lasts {settings['seconds']:g} s for each contender, or the least number of "
        f"turns. Faces are found by {settings['detector']} for all.",
        "The modes bear MLPerf's names; this is no MLPerf result.",
    ]
    items = "".join(f"<li>{escape(one)}</li>" for one in told)
    return _section("How it was measured", f"<ul>{items}</ul>")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of text; the first column names the row."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _section(title: str, content: str, note: str = "") -> str:
    """A card with a heading; ``content`` is HTML already."""
    told = f"<p>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{told}{content}</section>"


def _wide(title: str, content: str, note: str) -> str:
    return _section(title, content, note).replace("<section>", '<section class="wide">', 1)
