"""The tables of docs/reference/benchmarks.md about peers, from the JSON of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from goals import Ratio
from table import (
    ROOT,
    render_factor,
    render_head,
    render_heads,
    render_machine,
    render_row,
    render_time,
    replace_block,
)

DOCUMENT = ROOT / "docs" / "reference" / "benchmarks.md"
#: What stands between these is written by ``write_docs`` alone.
BLOCK = re.compile(r"<!-- peers: (?P<file>\S+) -->\n.*?<!-- /peers -->", re.DOTALL)


RATIOS = tuple(
    Ratio(f"{name}, ours with {title}", slow, f"{found}-{fast}")
    for found, title in (("yunet", "YuNet"), ("haar", "Haar"))
    for name, slow, fast in (
        ("crops and MFCCs of a clip", "mtcnn/inputs", "onnx-int8/inputs"),
        ("the face in one frame, against MTCNN", "mtcnn/detect", "onnx-int8/detect"),
        ("a clip to its answer, ONNX Runtime, against `fer`", "fer/clip", "onnx-int8/clip"),
        ("a clip to its answer, OpenVINO, against `fer`", "fer/clip", "openvino-int8/clip"),
    )
)
#: Contenders, and what the tables call them.
TITLES = {
    "mtcnn": "reference implementation: MTCNN and librosa",
    "fer": "`fer`: Haar and TensorFlow Lite, face alone",
    "haar-onnx-int8": "**ours**, Haar, int8 in ONNX Runtime",
    "haar-openvino-int8": "**ours**, Haar, int8 in OpenVINO",
    "yunet-onnx-int8": "**ours**, YuNet, int8 in ONNX Runtime",
    "yunet-openvino-int8": "**ours**, YuNet, int8 in OpenVINO",
}
#: Of an accuracy's key after the slash.
FEEDS = {"face": "face alone", "both": "face and voice"}
#: A table for each task.
TASKS = {
    "inputs": "a clip's file to face crops and MFCCs, ms",
    "detect": "the face in one of its frames, ms",
    "clip": "a clip's file to its answer, ms",
    "crop": "one face whose place is known, ms",
}
#: The task in which nobody looks for a face.
KNOWN_PLACE = "crop"


def render_tables(result: dict[str, Any]) -> str:
    """All of them in Markdown, with the facts of the machine."""
    clip = result["clip"]
    lines = [
        *render_machine(result),
        f"The clip is {clip['name']} ({clip['seconds']:g} s). The peers' versions:",
        f"{_name_versions(result['runs'][0]['facts'])}.",
    ]
    for task, title in TASKS.items():
        lines += ["", *_render_task(result, task, title)]
    lines += ["", *_render_starts(result), "", *_render_ratios(result)]
    if "accuracy" in result:
        lines += ["", *_render_accuracy(result["accuracy"])]
    return "\n".join(lines) + "\n"


def render_block(file: str) -> str:
    """What the document holds from marker to marker for one result, named from the root."""
    result = json.loads((ROOT / file).read_text())
    return f"<!-- peers: {file} -->\n{render_tables(result)}<!-- /peers -->"


def write_docs(path: Path) -> None:
    """Put the tables of ``path``, a result, between the document's markers."""
    replace_block(DOCUMENT, BLOCK, render_block(path.relative_to(ROOT).as_posix()))


def _name_versions(facts: dict[str, dict[str, Any]]) -> str:
    """Of each package of a peer's environment, and whose non-maximum suppression MTCNN has."""
    told = []
    for name, fact in facts.items():
        if "versions" in fact:
            versions = ", ".join(f"{package} {v}" for package, v in fact["versions"].items())
            helper = fact.get("suppression")
            told.append(f"{name} {versions}{f' (suppression: {helper})' if helper else ''}")
    return "; ".join(told)


def _render_task(result: dict[str, Any], task: str, title: str) -> list[str]:
    runs, found = result["runs"], task != KNOWN_PLACE
    lines = render_head(title, *render_heads(result), *(["frames with a face"] if found else []))
    for name, told in TITLES.items():
        if f"{name}/{task}" in runs[0]["milliseconds"]:
            facts = runs[0]["facts"][name]
            frames = [f"{facts['faces_found']} of {facts['frames']}"] if found else []
            times = [render_time(run, f"{name}/{task}") for run in runs]
            lines.append(render_row([told, *times, *frames]))
    return lines


def _render_starts(result: dict[str, Any]) -> list[str]:
    """A fresh process: seconds, and the memory of the last run."""
    runs = result["runs"]
    heads = [f"{head}, s" for head in render_heads(result)]
    lines = render_head("a fresh process until it is done once", *heads, "memory, MB")
    for name, told in TITLES.items():
        starts = [run["starts"][name] for run in runs if name in run["starts"]]
        if starts:
            memory = starts[-1]["memory_mb"]
            cells = [f"{start['seconds']:.2f}" for start in starts]
            lines.append(
                render_row([told, *cells, "unknown" if memory is None else f"{memory:.0f}"])
            )
    return lines


def _render_ratios(result: dict[str, Any]) -> list[str]:
    runs = result["runs"]
    lines = render_head("ratio", *render_heads(result))
    for ratio in RATIOS:
        if ratio.name in runs[0]["ratios"]:
            cells = [render_factor(run["ratios"][ratio.name]) for run in runs]
            lines.append(render_row([ratio.name, *cells]))
    return lines


def _render_accuracy(accuracy: dict[str, Any]) -> list[str]:
    heads = ("actors", "clips", "with a face", "prec1, % (95 %)", "prec1 of those with a face, %")
    lines = render_head("seven emotions", *heads)
    for part in (accuracy, *([accuracy["unseen"]] if "unseen" in accuracy else ())):
        for key, score in part["scores"].items():
            name, _, feed = key.partition("/")
            told = f"{TITLES[name]}, {FEEDS[feed]}" if feed else TITLES[name]
            prec1 = f"{score['prec1']:.1f} ({score['low']:.1f} to {score['high']:.1f})"
            # With the voice, a clip without a face has an answer, too.
            seen = part["scores"].get(f"{name}/face", score)["answered"]
            of_seen = "" if feed == "both" or not seen else f"{100 * score['right'] / seen:.1f}"
            actors = ", ".join(map(str, part["actors"]))
            lines.append(render_row([told, actors, str(score["clips"]), str(seen), prec1, of_seen]))
    return lines
