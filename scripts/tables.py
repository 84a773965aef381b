"""Measurements, as docs/*.json have them, to Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from cpu_tables import format_arm, format_cpus
from engine_tables import (
    format_answers,
    format_engines,
    format_int8,
    format_pixels,
    format_versions,
)
from face_tables import (
    format_crop_sizes,
    format_encoders,
    format_faces,
    format_following,
    format_sizes,
    format_sounds,
    format_voices,
)
from fault_tables import format_conditions, format_inputs, format_kills
from gate_tables import format_seeds, format_simulated
from mer.data.splits import load_splits
from mer.weights import SHIPPED
from table_rows import head as _head
from table_rows import row as _row

Json = dict[str, Any]

#: The paper's Table 2: loss, prec1, prec5, on RAVDESS itself.
PAPER = {
    "ia": (2.393, 33.958, 98.125),
    "it": (35.392, 13.958, 85.208),
    "lt": (16.699, 14.375, 59.167),
}
RECIPES = {name: f"`{name}`, encoder frozen" for name in ("paper", "tuned", "balanced")}
#: Keys of docs/models.json, as the tables name them.
FEEDS = {
    "both": "face and voice",
    "voice": "voice alone",
    "face": "face alone",
    "voice-face-noise": "voice, noise for a face",
    "face-voice-noise": "face, noise for a voice",
}


def format_models(data: Json) -> str:
    """Fusion by recipe, the paper's figures beside them."""
    lines = _head(
        "fusion", "recipe", "loss", "prec1, % (95 %)", "prec5, %", "UAR, % (95 %)", "ECE, %"
    )
    rows = _by_name(data)
    for fusion, (loss, prec1, prec5) in PAPER.items():
        lines.append(_row(f"`{fusion}`", "paper's Table 2, on RAVDESS", loss, prec1, prec5, "", ""))
        for recipe, told in RECIPES.items():
            if row := rows.get(f"{recipe}-{fusion}"):
                lines.append(_row(f"`{fusion}`", told, *_scores(row["scores"]["both"])))
        if row := rows.get(fusion):
            lines.append(_row(f"`{fusion}`", "**shipped**", *_scores(row["scores"]["both"])))
    for name in SHIPPED:
        if name not in PAPER and (row := rows.get(name)):
            told = f"**shipped**; `{row['fusion']}`, `{row['protocol']}`"
            lines.append(_row(f"`{name}`", told, *_scores(row["scores"]["both"])))
    return "\n".join(lines)


def format_feeds(data: Json) -> str:
    """Prec1 with each modality missing or replaced, beside single-modality models."""
    lines = _head("model", *FEEDS.values())
    for row in data["rows"]:
        scores = row["scores"]
        if row["name"] in ("voice-only", "face-only") or "voice-face-noise" in scores:
            cells = [_interval(scores[key], "prec1") if key in scores else "" for key in FEEDS]
            lines.append(_row(_name(row), *cells))
    return "\n".join(lines)


def format_folds(data: Json) -> str:
    """Five folds of ``ia``, their mean, and its standard deviation over folds."""
    rows = [row for row in data["rows"] if row["fold"] is not None]
    lines = _head("fold", "test actors", "clips", "loss", "prec1, %", "prec5, %", "UAR, %")
    names = ("loss", "prec1", "prec5", "uar")
    for row in rows:
        scores = row["scores"]["both"]
        test, _ = load_splits().held_out(row["fold"])
        actors = ", ".join(map(str, sorted(test)))
        cells = [_figure(name, scores[name]) for name in names]
        lines.append(_row(row["fold"], actors, scores["n"], *cells))
    if len(rows) > 1:
        spread = []
        for name in names:
            values = [row["scores"]["both"][name] for row in rows]
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            spread.append(f"{_figure(name, mean)} ± {_figure(name, deviation)}")
        clips = sum(row["scores"]["both"]["n"] for row in rows)
        lines.append(_row("mean ± standard deviation", "", clips, *spread))
    return "\n".join(lines)


def format_ablation(data: Json) -> str:
    """Learning rate by weight decay: validation and test prec1, and the best epoch."""
    rows = [
        row
        for row in data["rows"]
        if row["name"] == "paper-ia" or row["name"].startswith("ablation-")
    ]
    decays = sorted({row["weight_decay"] for row in rows})
    lines = _head("learning rate", *(f"weight decay {decay:g}" for decay in decays))
    for rate in sorted({row["learning_rate"] for row in rows}):
        cells = []
        for decay in decays:
            points = (
                one for one in rows if (one["learning_rate"], one["weight_decay"]) == (rate, decay)
            )
            row = next(points, None)
            cells.append(_point(row) if row else "")
        lines.append(_row(f"{rate:g}", *cells))
    return "\n".join(lines)


def format_confusion(data: Json) -> str:
    """Confusion matrices of the shipped checkpoints, true class by row."""
    tables = []
    for fusion in SHIPPED:
        if not (row := _by_name(data).get(fusion)):
            continue
        scores = row["scores"]["both"]
        labels = scores["labels"]
        lines = [f"`{fusion}`:", "", *_head("true class", *labels, "recall, %", "precision, %")]
        for label, counts in zip(labels, scores["confusion"], strict=True):
            one = scores["per_class"][label]
            rates = [_percent(one["recall"]), _percent(one["precision"])]
            shown = [
                f"**{count}**" if labels[i] == label else count or ""
                for i, count in enumerate(counts)
            ]
            lines.append(_row(label, *shown, *rates))
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def format_shipped(data: Json) -> str:
    """The shipped checkpoints on the test actors, for the model card."""
    lines = _head(
        "checkpoint", "fed with", "loss", "prec1, % (95 %)", "prec5, %", "UAR, % (95 %)", "ECE, %"
    )
    rows = _by_name(data)
    for fusion in SHIPPED:
        for key in ("both", "voice", "face"):
            if fusion in rows:
                scores = _scores(rows[fusion]["scores"][key])
                lines.append(_row(f"`{fusion}`", FEEDS[key], *scores))
    return "\n".join(lines)


def format_robustness(data: Json) -> str:
    """Prec1 of float and int8 under each corruption."""
    tables = []
    for fusion in SHIPPED:
        rows = [row for row in data["rows"] if row["fusion"] == fusion]
        if not rows:
            continue
        lines = [
            f"`{fusion}`, {rows[0]['n']} clips of the test actors:",
            "",
            *_head(
                "corruption",
                "what is done",
                "frames with a face, %",
                "prec1 float, % (95 %)",
                "prec1 int8, %",
                "same answer, %",
                "flips (+ int8 gains, - loses)",
            ),
        ]
        for row in rows:
            low, high = row["float"]["prec1_interval"]
            lines.append(
                _row(
                    row["name"],
                    row["what"],
                    f"{row['frames_with_face']:.1f}",
                    f"{row['float']['prec1']:.2f} ({low:.1f} to {high:.1f})",
                    f"{row['int8']['prec1']:.2f}",
                    f"{row['agreement']:.2f}",
                    f"+{row['only_a']} -{row['only_b']}",
                )
            )
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _by_name(data: Json) -> dict[str, Json]:
    return {row["name"]: row for row in data["rows"]}


def _name(row: Json) -> str:
    if row["name"] in SHIPPED:
        return f"`{row['name']}`, shipped"
    if row["name"] in ("voice-only", "face-only"):
        return f"{row['name']} model"
    return f"`{row['fusion']}`, `{row['protocol']}`"


def _scores(scores: Json) -> Sequence[str]:
    return (
        _figure("loss", scores["loss"]),
        _interval(scores, "prec1"),
        _figure("prec5", scores["prec5"]),
        _interval(scores, "uar"),
        f"{scores['ece']:.1f}",
    )


def _figure(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "loss" else f"{value:.2f}"


def _interval(scores: Json, name: str) -> str:
    low, high = scores["intervals"][name]
    return f"{scores[name]:.2f} ({low:.1f} to {high:.1f})"


def _point(row: Json) -> str:
    best, test = row["best"], row["scores"]["both"]
    return f"{best['validation_prec1']:.1f} / {test['prec1']:.1f} (epoch {best['epoch']:.0f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


#: Tables by name: the JSON file under docs, and what makes the table of it.
TABLES: dict[str, tuple[str, Callable[[Json], str]]] = {
    "models": ("models.json", format_models),
    "feeds": ("models.json", format_feeds),
    "folds": ("models.json", format_folds),
    "ablation": ("models.json", format_ablation),
    "confusion": ("models.json", format_confusion),
    "shipped": ("models.json", format_shipped),
    "robustness": ("robustness.json", format_robustness),
    "engines": ("accuracy.json", format_engines),
    "int8": ("accuracy.json", format_int8),
    "answers": ("accuracy.json", format_answers),
    "pixels": ("accuracy.json", format_pixels),
    "cpus": ("cpus.json", format_cpus),
    "arm": ("arm.json", format_arm),
    "versions": ("versions.json", format_versions),
    "gate": ("gate.json", format_simulated),
    "seeds": ("gate.json", format_seeds),
    "inputs": ("reliability.json", format_inputs),
    "kills": ("reliability.json", format_kills),
    "conditions": ("reliability.json", format_conditions),
    "voices": ("presence.json", format_voices),
    "sounds": ("presence.json", format_sounds),
    "faces": ("presence.json", format_faces),
    "following": ("following.json", format_following),
    "crop-sizes": ("crop-sizes.json", format_crop_sizes),
    "encoders": ("encoders.json", format_encoders),
    "detect-sizes": ("following.json", format_sizes),
}
