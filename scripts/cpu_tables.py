"""What was proved on other processors, as docs/cpus.json and docs/arm.json have it, in tables."""

from __future__ import annotations

from typing import Any

from table_rows import head, row

Json = dict[str, Any]

#: Engines, and what is fed, as readers know them.
ENGINES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
FEEDS = {"both": "face and voice", "audio": "voice alone", "video": "face alone"}


def format_cpus(data: Json) -> str:
    """What ``prove_cpus.py`` compared, row by row."""
    lines = head("compared", "engine", "processor", "result")
    for one in data["rows"]:
        result = one["result"] if one["right"] else f"**wrong**: {one['result']}"
        cpu = data["machine"] if one["cpu"] == "this machine" else one["cpu"]
        cells = (one["what"], ENGINES[one["engine"]], cpu, result.replace("|", "\\|"))
        lines.append(row(*cells))
    return "\n".join(lines)


def format_arm(data: Json) -> str:
    """Bundles for ARM on an emulated ARM processor against the float checkpoints."""
    lines = head(
        "fusion",
        "fed with",
        "clips",
        "prec1 float → int8",
        "same answer, %",
        "flips (+ gained, - lost)",
        "max / mean \\|Δlogit\\|",
    )
    for one in data["rows"]:
        lines.append(
            row(
                f"`{one['fusion']}`",
                FEEDS[one["modality"]],
                one["n"],
                f"{one['prec1']['float']:.2f} → {one['prec1']['engine']:.2f}",
                f"{one['agreement']:.2f}",
                f"+{one['only_a']} -{one['only_b']}",
                f"{one['max_logit_difference']:.2g} / {one['mean_logit_difference']:.2g}",
            )
        )
    return "\n".join(lines)
