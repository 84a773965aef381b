"""Clip mode of ``mer-run``: one answer for each clip, and the self-test."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from mer_runtime.console import escape_name, progress, say, warn
from mer_runtime.errors import MediaError, MerError
from mer_runtime.files import check_output, make_folder
from mer_runtime.inputs.listing import list_media
from mer_runtime.jobs import tell_unexpected
from mer_runtime.live.overlay import PICTURE_SUFFIX, VIDEO_SUFFIX, write_overlay
from mer_runtime.options import Results
from mer_runtime.prediction import Prediction
from mer_runtime.recognizer import Recognizer


def answer_clips(
    recognizer: Recognizer,
    clips: list[Path],
    overlays: Mapping[Path, Path],
    results: Results,
) -> None:
    """Print each clip's answer; exit with 1 at the end if one couldn't be read.

    Args:
        overlays: a picture or video to write of each, or nothing.
    """
    failed = 0
    # On a terminal the answers themselves show how far it is.
    hidden = len(clips) == 1 or sys.stdout.isatty()
    with progress(clips, label="Recognising", hidden=hidden) as bar:
        for clip in bar:
            try:
                analysis = recognizer.analyse(clip)
            except Exception as error:  # noqa: BLE001 # the clip's own, whatever it is
                failed += 1
                told = error if isinstance(error, MerError) else tell_unexpected(clip, error)
                report_failure(clip, told, results)
                continue
            report(analysis.prediction, recognizer if len(clips) == 1 else None, results)
            if clip in overlays:
                write_overlay(overlays[clip], analysis, recognizer.spec)
    if failed:
        raise click.exceptions.Exit(1)


def list_clips(source: Path) -> list[Path]:
    """The clip itself, or every clip in a folder and below it, sorted.

    Raises:
        MediaError: a folder holds no clip.
    """
    if not source.is_dir():
        return [source]
    listing = list_media(source)
    left_out = listing.describe_left_out()
    if not listing.clips:
        raise MediaError(source, f"no clips in this folder{f' ({left_out})' if left_out else ''}")
    if left_out:
        warn(f"{source}: {left_out}")
    return list(listing.clips)


def place_outputs(out: Path, source: Path, clips: Sequence[Path], suffix: str) -> dict[Path, Path]:
    """Where each clip of a folder gets a file: in ``out``, in folders like its own.

    Two clips there whose names differ in the suffix alone keep it: a.mp4.png, a.wav.png.

    Raises:
        OutputError: it can't be written, or is a clip.
    """
    bare = {clip: out / clip.relative_to(source).with_suffix(suffix) for clip in clips}
    taken = Counter(bare.values())
    placed = {
        clip: path if taken[path] == 1 else path.with_name(f"{clip.name}{suffix}")
        for clip, path in bare.items()
    }
    for folder in {path.parent for path in placed.values()}:
        make_folder(folder)
    for path in placed.values():
        check_output(path, *(clip for clip in clips if clip.name == path.name))
    return placed


def place_overlays(
    overlay: Path | None, source: Path, clips: Sequence[Path], *, whole: bool = False
) -> dict[Path, Path]:
    """Where each clip's overlay goes.

    Args:
        whole: whether it shows the whole clip, so that it has to be a video.

    Raises:
        click.UsageError: ``overlay`` names a file for a folder's clips, or is no picture or video.
        OutputError: it can't be written, or is a clip.
    """
    if overlay is None:
        return {}
    suffix = overlay.suffix.lower()
    media = suffix in (PICTURE_SUFFIX, VIDEO_SUFFIX)
    if not source.is_dir():
        if whole and suffix != VIDEO_SUFFIX:
            raise click.UsageError("--overlay with --timeline must end in .mp4")
        if not media:
            raise click.UsageError("--overlay must end in .png or .mp4")
        check_output(overlay, source)
        return {source: overlay}
    if media:
        raise click.UsageError("--overlay must name a folder where SOURCE is a folder")
    return place_outputs(overlay, source, clips, VIDEO_SUFFIX if whole else PICTURE_SUFFIX)


def report(prediction: Prediction, recognizer: Recognizer | None, results: Results) -> None:
    """Print an answer; in full where ``recognizer`` is given."""
    results.tell(prediction.to_dict(), "\n".join(_format(prediction, recognizer)))


def _format(prediction: Prediction, recognizer: Recognizer | None) -> Iterator[str]:
    probability = prediction.probabilities[prediction.label]
    missing = [n for n, t in (("face", prediction.face), ("voice", prediction.voice)) if not t]
    note = f"  (no {' or '.join(missing)})" if missing else ""
    if not prediction.settled:
        note += "  (a close call: rounding may have decided it)"
    source, answer = escape_name(prediction.source), escape_name(prediction.label)
    span = f" at {prediction.start:.1f} to {prediction.end:.1f} s" if prediction.end else ""
    yield f"{source}: {answer} {probability:.1%}{span}{note}"
    for sentence in prediction.notes:
        yield f"  {sentence}"
    if recognizer is None:
        return
    width = max(len(label) for label in prediction.probabilities)
    for label, p in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        yield f"  {escape_name(label):<{width}} {p:6.1%} {'█' * round(30 * p)}"
    frames = recognizer.spec.video.frames
    others = f", {prediction.people} people in the picture" if prediction.people > 1 else ""
    yield f"  face in {prediction.faces_found} of {frames} frames{others}"
    stages = ", ".join(f"{stage} {1000 * s:.1f} ms" for stage, s in prediction.seconds.items())
    yield f"  {stages}  ({recognizer.backend.name})"


def report_failure(clip: Path, error: MerError, results: Results) -> None:
    message = " ".join(str(error).split())
    results.tell({"source": str(clip), "error": message})
    if not results.as_json:
        say(f"Error: {message}", err=True)


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
