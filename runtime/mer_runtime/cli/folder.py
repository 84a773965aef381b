"""A folder's clips in several processes, here or on a cluster, and what an earlier run answered."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from mer_runtime.cli.clip import report, report_failure
from mer_runtime.console import progress
from mer_runtime.jobs import Outcome
from mer_runtime.live.overlay import write_overlay
from mer_runtime.options import Results
from mer_runtime.recognizer import Analysis, Prediction, Recognizer


def report_outcomes(outcomes: Iterable[Outcome], count: int, results: Results) -> None:
    """Print the answers of ``count`` clips; exit with 1 at the end if one couldn't be read."""
    failed = 0
    with progress(length=count, label="Recognising", hidden=sys.stdout.isatty()) as bar:
        for outcome in outcomes:
            if outcome.error is not None:
                failed += 1
                report_failure(outcome.item, outcome.error, results)
            else:
                report(outcome.value, None, results)
            bar.update(1)
    if failed:
        raise click.exceptions.Exit(1)


def drawing(overlays: Mapping[Path, Path]) -> partial[Prediction]:
    """What a worker does with an analysis: draw it where asked to, and hand back what is told."""
    # Another machine has another working folder.
    return partial(_finish, overlays={clip: out.absolute() for clip, out in overlays.items()})


def _finish(
    recognizer: Recognizer, analysis: Analysis, overlays: Mapping[Path, Path]
) -> Prediction:
    out = overlays.get(Path(analysis.prediction.source))
    if out is not None:
        write_overlay(out, analysis, recognizer.spec)
    return analysis.prediction


def leave_answered(clips: list[Path], results: Results) -> list[Path]:
    """The clips that ``--json-out FILE`` has no answer for; its other lines stay.

    A clip that couldn't be read is tried again: its line goes.
    """
    wanted = {str(clip) for clip in clips}

    def is_answer(line: Mapping[str, Any]) -> bool:
        return line.get("source") in wanted and "label" in line

    answered = {line["source"] for line in results.go_on(is_answer)}
    return [clip for clip in clips if str(clip) not in answered]
