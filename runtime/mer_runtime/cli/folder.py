"""A folder's clips in several processes, here or on a cluster, and what an earlier run answered."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from mer_runtime.cli.clip import report, report_failure
from mer_runtime.cli.engine import EngineOptions, load_engine
from mer_runtime.console import progress
from mer_runtime.engines import usable_cores
from mer_runtime.jobs import answer_in_parallel
from mer_runtime.live.overlay import write_overlay
from mer_runtime.options import Results
from mer_runtime.prediction import Analysis, Prediction
from mer_runtime.recognizer import Recognizer


class FolderOptions(NamedTuple):
    """Where a folder's clips are answered.

    Attributes:
        jobs: how many processes, if the user said.
        ray: a cluster's address.
        resume: whether an earlier run's answers stay.
    """

    jobs: int | None
    ray: str | None
    resume: bool

    def check(self, source: Path | None, results: Results, timeline: Path | None) -> None:
        """Refuse options that have no use here, as they would be passed over in silence.

        Args:
            source: a clip, or a folder of clips; None is a stream.

        Raises:
            click.UsageError: one has none.
        """
        for option, given in (("--ray", self.ray is not None), ("--resume", self.resume)):
            if given and (source is None or not source.is_dir()):
                raise click.UsageError(f"{option} is for a folder of clips")
            if given and timeline is not None:
                raise click.UsageError(f"{option} is for one answer a clip, not for --timeline")
        if self.resume and results.out is None:
            raise click.UsageError("--resume goes on with the FILE of --json-out: name it")


def answer_folder(
    bundle: Path,
    engine: EngineOptions,
    clips: list[Path],
    overlays: Mapping[Path, Path],
    options: FolderOptions,
    results: Results,
) -> None:
    """As ``answer_clips``, with processes that load the bundle once each."""
    # Another machine, and a worker of Ray's here, has another working folder.
    draw = partial(_finish, overlays={clip: out.absolute() for clip, out in overlays.items()})
    if options.ray is not None:
        # Here, as few ask for it.
        from mer_runtime.cluster import answer_on_cluster

        threads = engine.threads or 1
        detector = _make_absolute(engine.detector) if engine.detector else None
        engine = engine._replace(threads=threads, detector=detector)
        load = partial(load_engine, _make_absolute(bundle), engine)
        outcomes = answer_on_cluster(
            clips, options.ray, load, draw, workers=options.jobs, threads=threads
        )
    else:
        jobs = options.jobs or 1
        threads = engine.threads or max(usable_cores() // jobs, 1)
        load = partial(load_engine, bundle, engine._replace(threads=threads))
        outcomes = answer_in_parallel(clips, jobs, load, draw)
    failed = 0
    with progress(length=len(clips), label="Recognising", hidden=sys.stdout.isatty()) as bar:
        for outcome in outcomes:
            if outcome.error is not None:
                failed += 1
                report_failure(outcome.item, outcome.error, results)
            else:
                report(outcome.value, None, results)
            bar.update(1)
    if failed:
        raise click.exceptions.Exit(1)


def leave_answered(clips: list[Path], results: Results) -> list[Path]:
    """The clips that ``--json-out FILE`` has no answer for; its other lines stay.

    A clip that couldn't be read is tried again: its line goes.
    """
    wanted = {str(clip) for clip in clips}

    def is_answer(line: Mapping[str, Any]) -> bool:
        return line.get("source") in wanted and "label" in line

    answered = {line["source"] for line in results.go_on(is_answer)}
    return [clip for clip in clips if str(clip) not in answered]


def _finish(
    recognizer: Recognizer, analysis: Analysis, overlays: Mapping[Path, Path]
) -> Prediction:
    """In a worker: draw where asked to, and hand back what is told."""
    out = overlays.get(Path(analysis.prediction.source))
    if out is not None:
        write_overlay(out, analysis, recognizer.spec)
    return analysis.prediction


def _make_absolute(path: Path) -> Path:
    """A path that leads to the same from any folder; a bundle's name stays that."""
    return path.absolute() if path.exists() else path
