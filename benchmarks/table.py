"""README's table, from the JSON of a run, between its markers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
#: What stands between these is written by ``write_readme`` alone.
BLOCK = re.compile(r"<!-- bench: (?P<file>\S+) -->\n.*?<!-- /bench -->", re.DOTALL)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one task is than another; both are ``contender/task``."""

    name: str
    slow: str
    fast: str


@dataclass(frozen=True)
class Goal(Ratio):
    """A ratio to reach: what is promised at least, and what is hoped for."""

    least: float
    aim: float


RATIOS = (
    Goal(
        "OpenVINO int8 bundle against eager float PyTorch",
        "pytorch/window",
        "openvino-int8/window",
        6.5,
        8,
    ),
    Goal(
        "OpenVINO int8 bundle against OpenVINO f32",
        "untouched-openvino-f32/window",
        "openvino-int8/window",
        2.8,
        3.5,
    ),
    Goal(
        "OpenVINO int8 bundle against NNCF's stock int8",
        "untouched-openvino-nncf/window",
        "openvino-int8/window",
        1.5,
        1.8,
    ),
    Goal(
        "ONNX Runtime int8 bundle against ONNX Runtime fp32",
        "untouched-onnx-fp32/window",
        "onnx-int8/window",
        1.6,
        2,
    ),
    Goal(
        "deployment graph against untouched, ONNX Runtime fp32",
        "untouched-onnx-fp32/window",
        "onnx-fp32/window",
        1.2,
        1.4,
    ),
    Goal(
        "deployment graph against untouched, OpenVINO f32",
        "untouched-openvino-f32/window",
        "openvino-fp32/window",
        1.2,
        1.4,
    ),
    Goal(
        "a hop of a stream against the window, ONNX Runtime int8",
        "onnx-int8/window",
        "onnx-int8/hop",
        6,
        9,
    ),
    Goal(
        "a hop of a stream against the window, OpenVINO int8",
        "openvino-int8/window",
        "openvino-int8/hop",
        6,
        9,
    ),
    Goal("MFCC against librosa, warm", "mfcc-librosa/mfcc", "mfcc-ours/mfcc", 4, 6),
)
#: A window's contenders and what the table calls them.
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
}
TIMES = "\N{MULTIPLICATION SIGN}"
#: Times the clip's own length, and seconds from a process's start to its answer: least and aim.
REAL_TIME, START = (25, 40), (1.5, 0.8)


def render_ratio(ratio: Goal, result: dict[str, Any]) -> list[str]:
    """Cells of one row: name, a figure for each number of threads, least and aim."""
    cells = [render_factor(run["ratios"].get(ratio.name)) for run in result["runs"]]
    return [ratio.name, *cells, f"{ratio.least:g} {TIMES}", f"{ratio.aim:g} {TIMES}"]


def render_factor(found: dict[str, float] | None) -> str:
    """A ratio with its interval."""
    if found is None:
        return "not run"
    return f"{found['median']:.2f} {TIMES} ({found['low']:.2f} to {found['high']:.2f})"


def render_table(result: dict[str, Any]) -> str:
    """Both tables in Markdown, with the facts of the machine."""
    runs, heads = result["runs"], render_heads(result)
    lines = [
        *render_machine(result),
        "",
        render_row(["one 3.6 s window, ms", *heads]),
        render_row(["---"] * (1 + len(heads))),
    ]
    for name, title in TITLES.items():
        if all(f"{name}/window" in run["milliseconds"] for run in runs):
            lines.append(render_row([title, *(render_time(run, f"{name}/window") for run in runs)]))
    for bundle in ("onnx-int8", "openvino-int8"):
        title = f"one new crop and the answer (a hop), {bundle}"
        lines.append(render_row([title, *(render_time(run, f"{bundle}/hop") for run in runs)]))
    lines += [
        "",
        render_row(["ratio", *heads, "at least", "aim"]),
        render_row(["---"] * (3 + len(heads))),
    ]
    lines += [render_row(render_ratio(ratio, result)) for ratio in RATIOS]
    seconds = result["clip"]["seconds"]
    for bundle in ("onnx-int8", "openvino-int8"):
        rates = [1e3 * seconds / run["milliseconds"][f"{bundle}/clip"]["median"] for run in runs]
        cells = [f"{rate:.1f} {TIMES}" for rate in rates]
        name = f"{result['clip']['name']} ({seconds:g} s) to answer, times real time, {bundle}"
        lines.append(render_row([name, *cells, *(f"{figure} {TIMES}" for figure in REAL_TIME)]))
    starts = [run["milliseconds"]["onnx-int8/start"]["median"] / 1e3 for run in runs]
    cells = [f"{start:.2f} s" for start in starts]
    name = "process start to a clip's answer, onnx-int8"
    lines.append(render_row([name, *cells, *(f"{figure} s" for figure in START)]))
    return "\n".join(lines) + "\n"


def render_machine(result: dict[str, Any]) -> list[str]:
    """What was timed on, with what and how."""
    machine = result["machine"]
    flags = ", ".join(machine["flags"])
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    rounds = result["runs"][0]["rounds"]
    return [
        f"{machine['cpu']} ({flags}), {machine['cores']} cores, load {machine['load'][0]} at the",
        f"start, {result['date']}; {versions}. Medians of {rounds} rounds in turns,",
        "with 95 % bootstrap intervals; each contender in its own process on pinned cores.",
    ]


def render_heads(result: dict[str, Any]) -> list[str]:
    """A column's head for each number of threads."""
    return [f"{run['threads']} thread{'s' * (run['threads'] > 1)}" for run in result["runs"]]


def render_block(file: str) -> str:
    """What README holds from marker to marker for one result, named from the root."""
    result = json.loads((ROOT / file).read_text())
    return f"<!-- bench: {file} -->\n{render_table(result)}<!-- /bench -->"


def write_readme(path: Path) -> None:
    """Put the table of ``path``, a result, between README's markers."""
    replace_block(README, BLOCK, render_block(path.relative_to(ROOT).as_posix()))


def replace_block(document: Path, markers: re.Pattern[str], block: str) -> None:
    """Put ``block`` where ``document`` has one.

    Raises:
        ValueError: the markers aren't there exactly once.
    """
    written, count = markers.subn(lambda _: block, document.read_text())
    if count != 1:
        raise ValueError(f"{document} has {count} places for the table: it needs the markers once")
    document.write_text(written)


def render_time(run: dict[str, Any], name: str) -> str:
    """Milliseconds of ``contender/task`` with their interval."""
    found = run["milliseconds"][name]
    return f"{found['median']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def render_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
