"""What mer-train tells of its runs, as text and as JSON-ready data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mer.evaluate.confidence import Confidence, describe_confidence
from mer.train.runs import Row
from mer.train.series import Draw, Series
from mer.train.training import TrainingSummary
from mer_runtime.feeds import Modality


def describe_run(summary: TrainingSummary, out: Path, seconds: float) -> dict[str, Any]:
    """What ``--json`` prints of a run."""
    return {
        "run": str(out),
        "checkpoint": str(summary.checkpoint),
        "epochs": summary.epochs,
        "best": _rounded(summary.best),
        "confidence": _describe(summary.confidence),
        "seconds": round(seconds, 1),
    }


def describe_series(series: Series, out: Path, seconds: float) -> dict[str, Any]:
    """What ``--json`` prints of several runs."""
    return {
        "run": str(out),
        "table": str(series.table),
        "runs": [
            {
                **draw._asdict(),
                "checkpoint": str(run.checkpoint),
                "epochs": run.epochs,
                "best": _rounded(run.best),
                "confidence": _describe(run.confidence),
            }
            for draw, run in series.runs.items()
        ],
        "mean": _rounded(series.mean),
        "deviation": _rounded(series.deviation),
        "between": {kind: _rounded(row) for kind, row in series.between.items()},
        "seconds": round(seconds, 1),
    }


def format_series(series: Series, seconds: float) -> str:
    """Several runs, a line each, and what they have in common."""
    lines = [
        f"{name_draw(draw)}: epoch {run.best['epoch']}, validation {format_row(run.best)}, "
        f"{run.checkpoint}"
        for draw, run in series.runs.items()
    ]
    mean, deviation = series.mean, series.deviation
    counts = [
        f"{len(values)} {kind}s"
        for kind in ("fold", "seed")
        if len(values := {getattr(draw, kind) for draw in series.runs}) > 1
    ]
    lines.append(
        f"mean ± deviation of {' with '.join(counts)}: validation "
        f"prec1 {mean['validation_prec1']:.1f} ± {deviation['validation_prec1']:.1f} %, "
        f"prec5 {mean['validation_prec5']:.1f} ± {deviation['validation_prec5']:.1f} %, "
        f"loss {mean['validation_loss']:.3f} ± {deviation['validation_loss']:.3f} "
        f"({seconds:.0f} s)"
    )
    if series.between:
        folds, seeds = (series.between[kind]["validation_prec1"] for kind in ("folds", "seeds"))
        lines.append(f"deviation of prec1 between folds {folds:.1f} %, between seeds {seeds:.1f} %")
    return "\n".join([*lines, str(series.table)])


def name_draw(draw: Draw) -> str:
    """A run's fold and seed."""
    return f"fold {draw.fold}, seed {draw.seed}" if draw.fold else f"seed {draw.seed}"


def _describe(confidence: Mapping[Modality, Confidence]) -> dict[str, dict[str, float]]:
    return {shown: _rounded(one) for shown, one in describe_confidence(confidence).items()}


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def format_run(summary: TrainingSummary, seconds: float) -> str:
    """A run in a few lines."""
    best = summary.best
    told = [
        f"{shown} {one.temperature:.3f}, ECE {one.ece:.2f} % (without {one.ece_before:.2f} %)"
        for shown, one in summary.confidence.items()
    ]
    lines = [
        f"best of {summary.epochs} epochs is {best['epoch']}: validation {format_row(best)} "
        f"({seconds:.0f} s)",
        f"temperature: {'; '.join(told)}",
        str(summary.checkpoint),
    ]
    return "\n".join(lines)


def format_row(row: Row) -> str:
    """An epoch's validation."""
    return (
        f"prec1 {row['validation_prec1']:.1f} %, prec5 {row['validation_prec5']:.1f} %, "
        f"loss {row['validation_loss']:.3f}"
    )
