"""README's table, from the JSON of a run, between its markers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
#: What stands between these is written by ``write_readme`` alone.
BLOCK = re.compile(r"<!-- bench: (?P<file>\S+) -->\n.*?<!-- /bench -->", re.DOTALL)


@dataclass(frozen=True)
class Ratio:
    """A figure to reach: how many times faster one task is than another.

    Attributes:
        slow, fast: ``contender/task``.
        least, aim: what is promised, and what is hoped for.
    """

    name: str
    slow: str
    fast: str
    least: float
    aim: float


RATIOS = (
    Ratio(
        "OpenVINO int8 bundle against eager float PyTorch",
        "pytorch/window",
        "openvino-int8/window",
        6.5,
        8,
    ),
    Ratio(
        "OpenVINO int8 bundle against OpenVINO f32",
        "untouched-openvino-f32/window",
        "openvino-int8/window",
        2.8,
        3.5,
    ),
    Ratio(
        "OpenVINO int8 bundle against NNCF's stock int8",
        "untouched-openvino-nncf/window",
        "openvino-int8/window",
        1.5,
        1.8,
    ),
    Ratio(
        "ONNX Runtime int8 bundle against ONNX Runtime fp32",
        "untouched-onnx-fp32/window",
        "onnx-int8/window",
        1.6,
        2,
    ),
    Ratio(
        "deployment graph against untouched, ONNX Runtime fp32",
        "untouched-onnx-fp32/window",
        "onnx-fp32/window",
        1.2,
        1.4,
    ),
    Ratio(
        "deployment graph against untouched, OpenVINO f32",
        "untouched-openvino-f32/window",
        "openvino-fp32/window",
        1.2,
        1.4,
    ),
    Ratio(
        "a hop of a stream against the window, ONNX Runtime int8",
        "onnx-int8/window",
        "onnx-int8/hop",
        6,
        9,
    ),
    Ratio(
        "a hop of a stream against the window, OpenVINO int8",
        "openvino-int8/window",
        "openvino-int8/hop",
        6,
        9,
    ),
    Ratio("MFCC against librosa, warm", "mfcc-librosa/mfcc", "mfcc-ours/mfcc", 4, 6),
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


def render_ratio(ratio: Ratio, result: dict[str, Any]) -> list[str]:
    """Cells of one row: name, a figure for each number of threads, least and aim."""
    cells = []
    for run in result["runs"]:
        found = run["ratios"].get(ratio.name)
        cells.append(
            f"{found['median']:.2f} {TIMES} ({found['low']:.2f} to {found['high']:.2f})"
            if found
            else "not run"
        )
    return [ratio.name, *cells, f"{ratio.least:g} {TIMES}", f"{ratio.aim:g} {TIMES}"]


def render_table(result: dict[str, Any]) -> str:
    """Both tables in Markdown, with the facts of the machine."""
    machine, runs = result["machine"], result["runs"]
    heads = [f"{run['threads']} thread{'s' * (run['threads'] > 1)}" for run in runs]
    flags = ", ".join(machine["flags"])
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    lines = [
        f"{machine['cpu']} ({flags}), {machine['cores']} cores, load {machine['load'][0]} at the",
        f"start, {result['date']}; {versions}. Medians of {runs[0]['rounds']} rounds in turns,",
        "with 95 % bootstrap intervals; each contender in its own process on pinned cores.",
        "",
        _row(["one 3.6 s window, ms", *heads]),
        _row(["---"] * (1 + len(heads))),
    ]
    for name, title in TITLES.items():
        if all(f"{name}/window" in run["milliseconds"] for run in runs):
            lines.append(_row([title, *(_time(run, f"{name}/window") for run in runs)]))
    for bundle in ("onnx-int8", "openvino-int8"):
        title = f"one new crop and the answer (a hop), {bundle}"
        lines.append(_row([title, *(_time(run, f"{bundle}/hop") for run in runs)]))
    lines += [
        "",
        _row(["ratio", *heads, "at least", "aim"]),
        _row(["---"] * (3 + len(heads))),
    ]
    lines += [_row(render_ratio(ratio, result)) for ratio in RATIOS]
    seconds = result["clip"]["seconds"]
    for bundle in ("onnx-int8", "openvino-int8"):
        rates = [1e3 * seconds / run["milliseconds"][f"{bundle}/clip"]["median"] for run in runs]
        cells = [f"{rate:.1f} {TIMES}" for rate in rates]
        name = f"{result['clip']['name']} ({seconds:g} s) to answer, times real time, {bundle}"
        lines.append(_row([name, *cells, *(f"{figure} {TIMES}" for figure in REAL_TIME)]))
    starts = [run["milliseconds"]["onnx-int8/start"]["median"] / 1e3 for run in runs]
    cells = [f"{start:.2f} s" for start in starts]
    name = "process start to a clip's answer, onnx-int8"
    lines.append(_row([name, *cells, *(f"{figure} s" for figure in START)]))
    return "\n".join(lines) + "\n"


def render_block(file: str) -> str:
    """What README holds from marker to marker for one result, named from the root."""
    result = json.loads((ROOT / file).read_text())
    return f"<!-- bench: {file} -->\n{render_table(result)}<!-- /bench -->"


def write_readme(path: Path) -> None:
    """Put the table of ``path``, a result, between README's markers."""
    block = render_block(path.relative_to(ROOT).as_posix())
    text = README.read_text()
    written, count = BLOCK.subn(lambda _: block, text)
    if count != 1:
        raise ValueError(f"{README} has {count} places for the table: it needs the markers once")
    README.write_text(written)


def _time(run: dict[str, Any], name: str) -> str:
    found = run["milliseconds"][name]
    return f"{found['median']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
