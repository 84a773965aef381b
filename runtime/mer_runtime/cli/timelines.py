"""``mer-run --timeline``: the answers of whole clips, into a file for each, and summed up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from mer_runtime.cli.clip import place_outputs, report_failure
from mer_runtime.console import escape_name, progress
from mer_runtime.errors import MerError
from mer_runtime.files import check_output
from mer_runtime.inputs.tracking import Faces
from mer_runtime.jobs import tell_unexpected, work_in_parallel
from mer_runtime.options import Results
from mer_runtime.recognizer import Recognizer
from mer_runtime.stream import StreamEvent

#: Faces told of in text, those seen longest.
MOST_FACES = 5


class TimelineOptions(NamedTuple):
    """What is wanted of each clip.

    Attributes:
        files: each clip's file; ``overlays``, the videos to write of some.
    """

    files: Mapping[Path, Path]
    overlays: Mapping[Path, Path]
    faces: Faces
    hop: float | None


def place_timelines(
    out: Path, source: Path, clips: Sequence[Path], *others: Path | None
) -> dict[Path, Path]:
    """Where each clip's timeline goes: into ``out``, or of a folder into the folder ``out``
    without its ending: times.csv becomes times/clip.csv.

    Raises:
        click.UsageError: its ending names no kind of file.
        OutputError: it can't be written, or is a clip or one of ``others``.
    """
    # Here, so that a clip's single answer doesn't load what a timeline takes.
    from mer_runtime.timeline import KINDS

    if out.suffix.lower() not in KINDS:
        *first, last = KINDS
        raise click.UsageError(f"--timeline must end in {', '.join(first)} or {last}")
    if source.is_dir():
        return place_outputs(out.with_suffix(""), source, clips, out.suffix.lower())
    check_output(out, source, *others)
    return {source: out}


def answer_timelines(
    load: Callable[[], Recognizer],
    clips: Sequence[Path],
    options: TimelineOptions,
    jobs: int,
    results: Results,
) -> None:
    """Write each clip's timeline and print its summary; exit with 1 if one couldn't be read."""
    failed = 0
    if jobs > 1 and len(clips) > 1:
        bar = progress(length=len(clips), label="Recognising", hidden=sys.stdout.isatty())
        with bar as shown:
            for outcome in work_in_parallel(clips, jobs, load, partial(_answer, options)):
                failed += _report(outcome.item, outcome.value, outcome.error, options, results)
                shown.update(1)
    else:
        recognizer = load()
        for clip in clips:
            found, error = None, None
            try:
                found = _answer(options, recognizer, clip, shown=True)
            except MerError as raised:
                error = raised
            failed += _report(clip, found, error, options, results)
    if failed:
        raise click.exceptions.Exit(1)


def _answer(
    options: TimelineOptions, recognizer: Recognizer, clip: Path, *, shown: bool = False
) -> dict[str, Any]:
    """Write a clip's files; its summary."""
    from mer_runtime.timeline import write_timeline  # as above

    timeline = recognizer.timeline(
        clip, faces=options.faces, hop=options.hop, overlay=options.overlays.get(clip)
    )
    try:
        with progress(length=1000, label=clip.name, hidden=not shown) as bar:

            def tell(event: StreamEvent) -> None:
                if timeline.duration:
                    reached = min(round(1000 * event.end / timeline.duration), 1000)
                    bar.update(max(reached - bar.pos, 0))

            write_timeline(options.files[clip], timeline, tell)
    except MerError:
        raise
    except Exception as error:
        raise tell_unexpected(clip, error) from error
    return {**timeline.summary.to_dict(), "notes": timeline.notes, "step": round(timeline.step, 6)}


def _report(
    clip: Path,
    found: Mapping[str, Any] | None,
    error: MerError | None,
    options: TimelineOptions,
    results: Results,
) -> bool:
    """Print a clip's summary, or its error; whether it was that."""
    if error is not None or found is None:
        report_failure(clip, error or MerError("no answer"), results)
        return True
    out = options.files[clip]
    data = {"source": str(clip), "timeline": str(out), **found}
    if clip in options.overlays:
        data["overlay"] = str(options.overlays[clip])
    results.tell(data, "\n".join(_format(clip, out, found)))
    return False


def _format(clip: Path, out: Path, found: Mapping[str, Any]) -> Iterator[str]:
    seconds, answers, step = found["seconds"], found["answers"], found["step"]
    told = f"{seconds:.1f} s, {answers} answers, one every {step:g} s"
    yield f"{escape_name(str(clip))}: {told}, in {escape_name(str(out))}"
    if found["notes"]:
        yield f"  {found['notes']}"
    labels = found["labels"]
    width = max([len(label) for label in labels], default=0)
    parts = {"speech": found["speech"], "a face": found["face"]}
    if labels:
        heads = "".join(f"  with {name:<6}" for name in parts)
        yield f"  {'':<{width}} of the time{heads}"
    for label, share in labels.items():
        cells = "".join(f"  {part['labels'].get(label, 0.0):11.1%}" for part in parts.values())
        yield f"  {escape_name(label):<{width}} {share:11.1%}{cells}"
    shares = ", ".join(f"{name} in {part['share']:.1%}" for name, part in parts.items())
    yield f"  {shares} of the time"
    if len(found["faces"]) > 1:
        yield from _format_faces(found["faces"])


def _format_faces(faces: Mapping[str, Any]) -> Iterator[str]:
    ordered = sorted(faces.items(), key=lambda item: -item[1]["seconds"])
    for number, face in ordered[:MOST_FACES]:
        best = ", ".join(f"{escape_name(n)} {s:.0%}" for n, s in list(face["labels"].items())[:3])
        yield f"  face {number}: {face['seconds']:.1f} s, {best}"
    if len(ordered) > MOST_FACES:
        yield f"  and {len(ordered) - MOST_FACES} more faces"
