"""Clip mode of ``mer-run``: one answer for each clip, and the self-test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from mer_runtime.console import progress
from mer_runtime.errors import MediaError, MerError
from mer_runtime.inputs.media import MEDIA_SUFFIXES
from mer_runtime.jobs import answer_in_parallel
from mer_runtime.live.overlay import PICTURE_SUFFIX, VIDEO_SUFFIX, write_overlay
from mer_runtime.options import Results
from mer_runtime.recognizer import Analysis, Prediction, Recognizer


def answer_clips(
    recognizer: Recognizer,
    clips: list[Path],
    overlay: Path | None,
    results: Results,
    *,
    folder: bool,
) -> None:
    """Print each clip's answer; exit with 1 at the end if one couldn't be read.

    Args:
        overlay: a picture or video to write, or where the clips are a folder's, a folder.
    """
    failed = 0
    # On a terminal the answers themselves show how far it is.
    hidden = len(clips) == 1 or sys.stdout.isatty()
    with progress(clips, label="Recognising", hidden=hidden) as bar:
        for clip in bar:
            try:
                analysis = recognizer.analyse(clip)
            except MerError as error:
                failed += 1
                _report_failure(clip, error, results)
                continue
            _report(analysis.prediction, recognizer if len(clips) == 1 else None, results)
            if overlay is not None:
                out = overlay / f"{clip.stem}{PICTURE_SUFFIX}" if folder else overlay
                write_overlay(out, analysis, recognizer.spec)
    if failed:
        raise click.exceptions.Exit(1)


def answer_folder(
    load: Callable[[], Recognizer],
    clips: list[Path],
    overlay: Path | None,
    jobs: int,
    results: Results,
) -> None:
    """As ``answer_clips``, with ``jobs`` processes that ``load`` the bundle once each.

    Args:
        overlay: a folder for pictures.
    """
    failed = 0
    with progress(length=len(clips), label="Recognising", hidden=sys.stdout.isatty()) as bar:
        for outcome in answer_in_parallel(clips, jobs, load, partial(_finish, overlay=overlay)):
            if outcome.error is not None:
                failed += 1
                _report_failure(outcome.clip, outcome.error, results)
            else:
                _report(outcome.value, None, results)
            bar.update(1)
    if failed:
        raise click.exceptions.Exit(1)


def _finish(recognizer: Recognizer, analysis: Analysis, overlay: Path | None) -> Prediction:
    """In a process of its own: draw where asked to, and hand back what is told."""
    if overlay is not None:
        name = f"{Path(analysis.prediction.source).stem}{PICTURE_SUFFIX}"
        write_overlay(overlay / name, analysis, recognizer.spec)
    return analysis.prediction


def list_clips(source: Path) -> list[Path]:
    """The clip itself, or every clip in a folder and below it, sorted.

    Raises:
        MediaError: a folder holds no clip.
    """
    if not source.is_dir():
        return [source]
    clips = sorted(p for p in source.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES)
    if not clips:
        raise MediaError(source, f"no clips in this folder ({', '.join(MEDIA_SUFFIXES)})")
    return clips


def check_overlay(overlay: Path | None, source: Path) -> None:
    """Refuse what can't be written before the first clip is decoded."""
    if overlay is None:
        return
    if source.is_dir():
        if overlay.suffix.lower() in (PICTURE_SUFFIX, VIDEO_SUFFIX):
            raise click.UsageError("--overlay must name a folder where SOURCE is a folder")
        try:
            overlay.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.ClickException(f"can't write {overlay}: {error.strerror}") from error
    elif overlay.suffix.lower() not in (PICTURE_SUFFIX, VIDEO_SUFFIX):
        raise click.UsageError("--overlay must end in .png or .mp4")
    elif not overlay.absolute().parent.is_dir():
        raise click.ClickException(f"can't write {overlay}: there is no such folder")


def _report(prediction: Prediction, recognizer: Recognizer | None, results: Results) -> None:
    """Print an answer; in full where ``recognizer`` is given."""
    results.tell(prediction.to_dict(), "\n".join(_format(prediction, recognizer)))


def _format(prediction: Prediction, recognizer: Recognizer | None) -> Iterator[str]:
    probability = prediction.probabilities[prediction.label]
    missing = [n for n, t in (("face", prediction.face), ("voice", prediction.voice)) if not t]
    note = f"  (no {' or '.join(missing)})" if missing else ""
    if not prediction.settled:
        note += "  (a close call: rounding may have decided it)"
    yield f"{prediction.source}: {prediction.label} {probability:.1%}{note}"
    if recognizer is None:
        return
    width = max(len(label) for label in prediction.probabilities)
    for label, p in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        yield f"  {label:<{width}} {p:6.1%} {'█' * round(30 * p)}"
    frames = recognizer.spec.video.frames
    others = f", {prediction.people} people in the picture" if prediction.people > 1 else ""
    yield f"  face in {prediction.faces_found} of {frames} frames{others}"
    stages = ", ".join(f"{stage} {1000 * s:.1f} ms" for stage, s in prediction.seconds.items())
    yield f"  {stages}  ({recognizer.backend.name})"


def _report_failure(clip: Path, error: MerError, results: Results) -> None:
    message = " ".join(str(error).split())
    results.tell({"source": str(clip), "error": message})
    if not results.as_json:
        click.echo(f"Error: {message}", err=True)


def report_self_test(recognizer: Recognizer, results: Results) -> None:
    """Replay the golden inputs, print how far off they are; exit with 1 if too far."""
    result = recognizer.self_test()
    verdict = "passed" if result.passed else "FAILED"
    results.tell(
        {
            "passed": result.passed,
            "cases": result.cases,
            "max_difference": result.max_difference,
            "tolerance": result.tolerance,
            "fault": result.fault,
            "backend": recognizer.backend.name,
        },
        f"Self-test {verdict}: {result.cases} golden inputs, max |Δlogit| "
        f"{result.max_difference:.2e}, tolerance {result.tolerance:.0e} "
        f"({recognizer.backend.name})" + (f"; {result.fault}" if result.fault else ""),
    )
    if not result.passed:
        raise click.exceptions.Exit(1)
