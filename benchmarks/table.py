"""Tables of README and docs/reference/benchmarks.md, from a run on each kind of processor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goals import COMPACT, COMPACT_REAL_TIME, RATIOS, REAL_TIME, START
from mer_runtime.engines.processor import KIND_TITLES, KINDS, OTHER, find_kind

ROOT = Path(__file__).resolve().parents[1]
README, DOCUMENT = ROOT / "README.md", ROOT / "docs" / "reference" / "benchmarks.md"
#: What stands between these is written by ``write_tables`` alone.
BLOCK = re.compile(r"<!-- bench: (?P<files>\S+(?: \S+)*) -->\n.*?<!-- /bench -->", re.DOTALL)
#: A window's contenders and what the tables call them.
TITLES = {
    "pytorch": "PyTorch, eager, float32",
    "pytorch-compiled": "PyTorch, `torch.compile`, float32",
    "untouched-onnx-fp32": "untouched network, ONNX Runtime fp32",
    "untouched-onnx-static": "untouched network, ONNX Runtime's stock int8",
    "untouched-openvino-f32": "untouched network, OpenVINO f32",
    "untouched-openvino-bf16": "untouched network, OpenVINO bf16",
    "untouched-openvino-nncf": "untouched network, NNCF's stock int8 in OpenVINO",
    "onnx-fp32": "our graph, ONNX Runtime fp32",
    "openvino-fp32": "our graph, OpenVINO f32",
    "openvino-bf16": "our graph, OpenVINO bf16",
    "onnx-int8": "**our int8 bundle, ONNX Runtime**",
    "openvino-int8": "**our int8 bundle, OpenVINO**",
    "compact-onnx-int8": "**`ia-compact-int8`, ONNX Runtime**",
    "compact-openvino-int8": "**`ia-compact` in int8, OpenVINO**",
}
#: Bundles whose hops and clips are timed, too.
BUNDLES = ("onnx-int8", "openvino-int8", "compact-onnx-int8", "compact-openvino-int8")
#: By ``contender/task``.
TIMED = {f"{name}/window": title for name, title in TITLES.items()} | {
    f"{name}/hop": f"one new crop and the answer (a hop), {name}" for name in BUNDLES
}
#: What README has of them.
OVERVIEW = (
    "pytorch/window",
    "untouched-onnx-fp32/window",
    "untouched-openvino-f32/window",
    "untouched-openvino-nncf/window",
    "onnx-int8/window",
    "openvino-int8/window",
    "compact-onnx-int8/window",
    "compact-openvino-int8/window",
    "compact-openvino-int8/hop",
    "onnx-int8/start",
)
START_TITLE = "process start to a clip's answer, onnx-int8"
TIMES = "\N{MULTIPLICATION SIGN}"
#: In a cell of what wasn't run, or has no goal.
NOTHING = "\N{EN DASH}"

#: A run with ``threads`` threads, and the result that it belongs to.
Column = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """A figure to reach: a cell for each column, and least and aim on each one's kind."""

    title: str
    cells: list[str]
    goals: list[tuple[str, str]]


def name_kind(result: dict[str, Any]) -> str:
    """The kind of processor on which a result was taken."""
    return find_kind(result["machine"]["flags"])


def render_overview(results: Sequence[dict[str, Any]]) -> str:
    """Kinds of processor side by side in Markdown: medians, each with the most threads."""
    columns: list[Column] = [(result["runs"][-1], result) for result in results]
    heads = [f"{KIND_TITLES[name_kind(result)]}, {_name_threads(run)}" for run, result in columns]
    lines = render_head("milliseconds", *heads)
    for name in OVERVIEW:
        if any(name in run["milliseconds"] for run, _ in columns):
            cells = [_render_median(run, name) for run, _ in columns]
            lines.append(render_row([TIMED.get(name, START_TITLE), *cells]))
    lines.append("")
    for run, result in columns:
        lines.append(
            f"{KIND_TITLES[name_kind(result)]}: {describe_processor(result)}, {result['date']}, "
            f"medians of {run['rounds']} rounds."
        )
    return "\n".join(lines) + "\n"


def render_details(result: dict[str, Any]) -> str:
    """All of one result in Markdown, a column for each number of threads."""
    columns: list[Column] = [(run, result) for run in result["runs"]]
    heads = render_heads(result)
    lines = [f"### {KIND_TITLES[name_kind(result)]}", "", *render_machine(result), ""]
    lines += render_times(columns, heads)
    lines += ["", *render_head("ratio", *heads, "at least", "aim")]
    lines += [render_row([row.title, *row.cells, *row.goals[0]]) for row in list_rows(columns)]
    return "\n".join(lines) + "\n"


def render_times(columns: Sequence[Column], heads: Sequence[str]) -> list[str]:
    """The table of milliseconds; what no column has gets no row."""
    lines = render_head("one 3.6 s window, ms", *heads)
    for name, title in TIMED.items():
        if any(name in run["milliseconds"] for run, _ in columns):
            cells = [render_time(run, name) for run, _ in columns]
            lines.append(render_row([title, *cells]))
    return lines


def list_rows(columns: Sequence[Column]) -> list[Row]:
    """Ratios, rates and starts; what no column has gets no row."""
    rows = []
    for ratio in RATIOS:
        if any(ratio.name in run["ratios"] for run, _ in columns):
            cells = [render_factor(run["ratios"].get(ratio.name)) for run, _ in columns]
            found = [ratio.find(name_kind(result)) for _, result in columns]
            rows.append(Row(ratio.name, cells, [_render_goal(goal, TIMES) for goal in found]))
    for bundle in BUNDLES:
        task = f"{bundle}/clip"
        if any(task in run["milliseconds"] for run, _ in columns):
            clip = columns[0][1]["clip"]
            title = f"{clip['name']} ({clip['seconds']:g} s) to answer, times real time, {bundle}"
            cells = [_render_rate(run, task, result["clip"]["seconds"]) for run, result in columns]
            goal = COMPACT_REAL_TIME if bundle.startswith(COMPACT) else REAL_TIME
            rows.append(Row(title, cells, [_render_goal(goal, TIMES)] * len(columns)))
    starts = [run["milliseconds"]["onnx-int8/start"]["median"] / 1e3 for run, _ in columns]
    goals = [_render_goal(START, "s")] * len(columns)
    return [*rows, Row(START_TITLE, [f"{start:.2f} s" for start in starts], goals)]


def render_factor(found: dict[str, float] | None) -> str:
    """A ratio with its interval."""
    if found is None:
        return NOTHING
    return f"{found['median']:.2f} {TIMES} ({found['low']:.2f} to {found['high']:.2f})"


def render_time(run: dict[str, Any], name: str) -> str:
    """Milliseconds of ``contender/task`` with their interval."""
    found = run["milliseconds"].get(name)
    if found is None:
        return NOTHING
    return f"{found['median']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def _render_rate(run: dict[str, Any], task: str, seconds: float) -> str:
    found = run["milliseconds"].get(task)
    return NOTHING if found is None else f"{1e3 * seconds / found['median']:.1f} {TIMES}"


def _render_median(run: dict[str, Any], name: str) -> str:
    found = run["milliseconds"].get(name)
    if found is None:
        return NOTHING
    return f"{found['median']:.{0 if found['median'] >= 100 else 1}f}"


def describe_processor(result: dict[str, Any]) -> str:
    """Its name, cores, and whether instructions were hidden to stand in for another one."""
    machine = result["machine"]
    hidden = ", ".join(machine.get("hidden") or ())
    told = f", {hidden} hidden from every process" if hidden else ""
    return f"{machine['cpu']}, {machine['cores']} cores{told}"


def render_machine(result: dict[str, Any]) -> list[str]:
    """What was timed on, with what and how."""
    machine = result["machine"]
    flags = ", ".join(machine["flags"])
    if machine.get("hidden"):
        hidden = ", ".join(machine["hidden"])
        flags += f"; hidden from every process by CPUID faulting: {hidden}"
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    rounds = result["runs"][0]["rounds"]
    return [
        f"{machine['cpu']} ({flags}), {machine['cores']} cores, load {machine['load'][0]} at the",
        f"start, {result['date']}; {versions}. Medians of {rounds} rounds in turns,",
        "with 95 % bootstrap intervals; each contender in its own process on pinned cores.",
    ]


def render_heads(result: dict[str, Any]) -> list[str]:
    """A column's head for each number of threads."""
    return [_name_threads(run) for run in result["runs"]]


def read_results(files: Sequence[str]) -> list[dict[str, Any]]:
    """Results by their files, named from the root."""
    return [json.loads((ROOT / file).read_text()) for file in files]


def render_block(files: Sequence[str], render: Callable[[list[dict[str, Any]]], str]) -> str:
    """What a document holds from marker to marker for these results."""
    return f"<!-- bench: {' '.join(files)} -->\n{render(read_results(files))}<!-- /bench -->"


def render_all_details(results: Sequence[dict[str, Any]]) -> str:
    """Of each result, all."""
    return "\n".join(render_details(result) for result in results)


#: Documents with a block, and what writes it.
BLOCKS = {README: render_overview, DOCUMENT: render_all_details}


def write_tables(path: Path) -> None:
    """Put ``path``, a result, into the documents' tables, in place of the one of its kind.

    Raises:
        ValueError: a document's markers aren't there exactly once.
    """
    for document, render in BLOCKS.items():
        found = BLOCK.search(document.read_text())
        files = merge_files(found["files"].split() if found else [], path)
        replace_block(document, BLOCK, render_block(files, render))


def merge_files(files: Sequence[str], path: Path) -> list[str]:
    """``files`` with ``path`` in place of the one of its kind, the fastest kind first."""
    new = path.relative_to(ROOT).as_posix()
    kinds = {
        file: name_kind(result)
        for file, result in zip([*files, new], read_results([*files, new]), strict=True)
    }
    kept = [file for file, kind in kinds.items() if file == new or kind != kinds[new]]
    order = [*KINDS, OTHER]
    return sorted(kept, key=lambda file: order.index(kinds[file]))


def replace_block(document: Path, markers: re.Pattern[str], block: str) -> None:
    """Put ``block`` where ``document`` has one.

    Raises:
        ValueError: the markers aren't there exactly once.
    """
    written, count = markers.subn(lambda _: block, document.read_text())
    if count != 1:
        raise ValueError(f"{document} has {count} places for the table: it needs the markers once")
    document.write_text(written)


def render_head(*cells: str) -> list[str]:
    """A Markdown table's first two lines."""
    return [render_row(cells), render_row(["---"] * len(cells))]


def render_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _render_goal(goal: tuple[float, float] | None, unit: str) -> tuple[str, str]:
    if goal is None:
        return NOTHING, NOTHING
    least, aim = goal
    return f"{least:g} {unit}", f"{aim:g} {unit}"


def _name_threads(run: dict[str, Any]) -> str:
    return f"{run['threads']} thread{'s' * (run['threads'] > 1)}"
