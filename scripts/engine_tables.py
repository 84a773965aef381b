"""Tables of engines against the float model, and of the versions that were run."""

from __future__ import annotations

import statistics
from typing import Any

from mer.weights import SHIPPED
from table_rows import head as _head
from table_rows import row as _row

Json = dict[str, Any]


def format_engines(data: Json) -> str:
    """Every engine and precision against the float checkpoint."""
    lines = _head(
        "fusion",
        "engine",
        "precision",
        "fed with",
        "graphs, MB",
        "prec1 float → engine",
        "prec5 float → engine",
        "same answer, %",
        "flips (+ gained, - lost)",
        "McNemar p",
        "95 % of Δprec1",
        "max / mean \\|Δlogit\\|",
        "ECE float → engine",
    )
    for row in data["rows"]:
        engine, floats = row["engine"], row["float"]
        low, high = row["prec1_difference_interval"]
        lines.append(
            _row(
                row["fusion"],
                row["target"],
                row["precision"],
                row["modality"],
                f"{row['graph_size'] / 1e6:.2f}",
                f"{floats['prec1']:.2f} → {engine['prec1']:.2f}",
                f"{floats['prec5']:.2f} → {engine['prec5']:.2f}",
                f"{row['agreement']:.2f}",
                f"+{row['only_a']} -{row['only_b']}",
                f"{row['mcnemar_p']:.2f}",
                f"{low:+.2f} to {high:+.2f}",
                f"{row['max_logit_difference']:.2g} / {row['mean_logit_difference']:.2g}",
                f"{floats['ece']:.1f} → {engine['ece']:.1f}",
            )
        )
    return "\n".join(lines)


def format_int8(data: Json) -> str:
    """What int8 costs in ONNX Runtime with both modalities."""
    lines = _head("face and voice", "prec1 float → int8", "same answer", "flips", "graphs")
    for row in data["rows"]:
        if (row["target"], row["precision"], row["modality"]) == ("onnx", "int8", "both"):
            lines.append(
                _row(
                    f"`{row['fusion']}`",
                    f"{row['float']['prec1']:.2f} → {row['engine']['prec1']:.2f}",
                    f"{row['agreement']:.2f} %",
                    f"+{row['only_a']} -{row['only_b']}",
                    f"{row['graph_size'] / 1e6:.2f} MB",
                )
            )
    return "\n".join(lines)


def format_answers(data: Json) -> str:
    """One sentence of the bundle that ships, for the README."""
    for row in data["rows"]:
        key = (row["fusion"], row["target"], row["precision"], row["modality"])
        if key == ("ia", "onnx", "int8", "both"):
            return (
                f"On {row['n']} clips of actors that took no part in training, the float model "
                f"`ia` is right in {row['float']['prec1']:.2f} % and its int8 bundle in "
                f"{row['engine']['prec1']:.2f} %; they give the same answer in "
                f"{row['agreement']:.2f} %. The bundle's graphs take "
                f"{row['graph_size'] / 1e6:.2f} MB."
            )
    return ""


def format_pixels(data: Json) -> str:
    """What int8 changes, beside what pixels change that are off by one."""
    lines = _head(
        "fusion",
        "fed with",
        "± 1 on pixels: same answer, %",
        "mean \\|Δlogit\\|",
        "int8, ONNX Runtime: same answer, %",
        "mean \\|Δlogit\\|",
        "int8, OpenVINO: same answer, %",
        "mean \\|Δlogit\\|",
    )
    int8 = {
        (row["fusion"], row["target"], row["modality"]): row
        for row in data["rows"]
        if row["precision"] == "int8"
    }
    for fusion in SHIPPED:
        for modality in ("both", "video"):
            draws = [
                row
                for row in data.get("pixels", [])
                if (row["fusion"], row["modality"]) == (fusion, modality)
            ]
            if not draws:
                continue
            same = [row["agreement"] for row in draws]
            mean = statistics.mean(row["mean_logit_difference"] for row in draws)
            cells = [f"{min(same):.2f} to {max(same):.2f}", f"{mean:.3f}"]
            for target in ("onnx", "openvino"):
                row = int8[fusion, target, modality]
                cells += [f"{row['agreement']:.2f}", f"{row['mean_logit_difference']:.3f}"]
            lines.append(_row(f"`{fusion}`", modality, *cells))
    return "\n".join(lines)


def format_versions(data: Json) -> str:
    """What ran with the oldest and the newest versions; a table for each machine and Python."""
    packages = list(dict.fromkeys(name for row in data["rows"] for name in row["versions"]))
    engines = ("onnxruntime", "openvino")
    columns = [*packages, *(f"golden inputs in {name}" for name in engines), "runtime's tests"]
    tables: dict[str, list[str]] = {}
    for row in data["rows"]:
        place = f"{row['cpu']}, Python {row['python']}, {row['date']}:"
        lines = tables.setdefault(place, [place, "", *_head("environment", *columns)])
        versions = [row["versions"].get(name, "") for name in packages]
        golden = [_replayed(row["golden"].get(name)) for name in engines]
        lines.append(_row(row["name"], *versions, *golden, _tested(row)))
    return "\n\n".join("\n".join(lines) for lines in tables.values())


def _replayed(answer: Json | None) -> str:
    if answer is None or "error" in answer:
        return answer["error"] if answer else ""
    difference = f"{answer['max_difference']:.2g} of {answer['tolerance']:.2g}"
    return difference if answer["passed"] else f"**wrong:** {difference}"


def _tested(row: Json) -> str:
    if "error" in row:
        return f"**not run:** {row['error']}"
    tests = row["tests"]
    told = [f"{tests['passed']} passed"]
    told += [f"**{tests['failed']} failed**"] * bool(tests["failed"])
    told += [f"{tests['skipped']} skipped"] * bool(tests["skipped"])
    return ", ".join(told)
