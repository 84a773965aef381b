"""``mer-prepare``: a folder of recordings to a cache that training reads."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from mer.data.corpus import VOCAL
from mer.data.preparation import Notes, PreparationSummary, prepare_cache
from mer.data.ravdess import VOCALS, Vocal
from mer.data.workers import Failure
from mer_runtime import options
from mer_runtime.console import Command, progress, warn
from mer_runtime.inputs.listing import describe_left_out
from mer_runtime.options import Results
from mer_runtime.spec import AudioSpec, Spec, VideoSpec


@click.command("mer-prepare", cls=Command)
@click.argument("source", type=click.Path(path_type=Path), metavar="FOLDER|TABLE.csv")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="CACHE",
    help="Folder of the cache; made if need be.",
)
@click.option(
    "--vocal",
    type=click.Choice(VOCALS),
    help=f"What to take of RAVDESS. Songs have six of its eight emotions.  [default: {VOCAL}]",
)
@click.option(
    "--classes",
    metavar="A,B,C=X+Y,...",
    help="Take only these classes, or merge some: happy,sad,other=calm+neutral. NAME=... takes "
    "all labels that no other class has. 2 to 100.  [default: the corpus's labels]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes that decode and crop.",
)
@options.face_detector(default="$MER_FACE_DETECTOR, else the YuNet that ships")
@click.option(
    "--sample-rate",
    type=int,
    default=AudioSpec().sample_rate,
    show_default=True,
    metavar="HZ",
    help="Of the stored voices; 22050 for checkpoints of the public reference implementation.",
)
@click.option(
    "--size",
    type=int,
    default=VideoSpec().size,
    show_default=True,
    metavar="PIXELS",
    help="Of the face crops: a multiple of 16. The cache serves smaller sizes too.",
)
@click.option(
    "--frames",
    type=int,
    default=VideoSpec().frames,
    show_default=True,
    help="Crops of a clip, evenly spread over the window.",
)
@click.option(
    "--window",
    type=float,
    default=VideoSpec().window,
    show_default=True,
    metavar="SECONDS",
    help="Length of what a model sees of a clip: its middle.",
)
@options.results
@options.common
def main(
    source: Path,
    out: Path,
    vocal: Vocal | None,
    classes: str | None,
    jobs: int,
    face_detector: Path | None,
    sample_rate: int,
    size: int,
    frames: int,
    window: float,
    results: Results,
) -> None:
    """Decode and crop the recordings of a corpus once, for mer-train and mer-eval.

    The corpus is a table, or a folder above files named as RAVDESS or CREMA-D name them:

    \b
      file,label,actor,split,start,end,voice          TABLE.csv; only the first two must be
      Actor_NN/MM-VC-EM-IN-ST-RE-AC.mp4|wav           RAVDESS
      1001_DFA_ANG_XX.flv|mp4|wav                     CREMA-D

    A table's files are named from its folder. split is train, validation or test; without it,
    actors are divided, a sixth for each of the latter. start and end are seconds of the file. voice
    is a sound file that is heard in place of the clip's own.

    Each utterance becomes one clip. RAVDESS's is its 01- file, else the silent 02- video with the
    voice of the 03- file, else that voice alone. The cache holds the 15 face crops and the
    waveform of each clip's middle 3.6 s: about 2.4 MB a clip, 3.4 GB for RAVDESS's 1 440
    utterances. Crops of 96 pixels take a fifth of that.

    Stopped by Ctrl-C, the same command goes on where it was. Recordings that can't be used are
    listed with the reason and left out; the exit code is 1 only if none could be used.

    \b
    Example:
      mer-prepare RAVDESS --out cache/ravdess
      mer-prepare RAVDESS --vocal both --classes happy,sad,other=... --out cache/three
      mer-prepare clips.csv --out cache/mine
      mer-train cache/ravdess --fusion ia --out runs/ia
    """
    spec = Spec(
        audio=AudioSpec(sample_rate=sample_rate, window=window),
        video=VideoSpec(size=size, frames=frames, window=window),
    )
    told: list[Failure | Notes] = []
    started = time.monotonic()
    try:
        with progress(length=1, label="Preparing clips") as bar:

            def show(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            summary = prepare_cache(
                source,
                out,
                spec=spec,
                vocal=vocal,
                classes=classes,
                face_detector=face_detector,
                jobs=jobs,
                report=told.append,
                progress=show,
            )
    except KeyboardInterrupt:
        raise click.ClickException(
            f"interrupted; the same command goes on from here (clips are kept in {out})"
        ) from None
    finally:
        for one in told:
            if isinstance(one, Failure):
                warn(f"left out {one.id}: {one.error}")
            else:
                warn(f"{one.id}: {'; '.join(one.notes)}")
    seconds = time.monotonic() - started
    data = {"cache": str(out), **dataclasses.asdict(summary), "seconds": round(seconds, 1)}
    results.tell(data, _format(summary, out, seconds))


def _format(summary: PreparationSummary, out: Path, seconds: float) -> str:
    lines = [
        f"{summary.clips} clips in {out} ({summary.reused} were there), "
        f"{len(summary.failures)} failed, {summary.size / 1e6:.0f} MB, {seconds:.0f} s",
        f"with a face: {summary.with_face} ({summary.detector['name']}; detected in "
        f"{100 * summary.faces_found:.1f} % of their frames); with a voice: {summary.with_voice}",
    ]
    for what in (summary.classes, summary.splits):
        lines.append(", ".join(f"{name} {count}" for name, count in what.items()))
    if passed := [f"{count} {reason}" for reason, count in summary.passed_over.items() if count]:
        lines.append(f"passed over: {', '.join(passed)}")
    if left_out := describe_left_out(summary.left_out):
        lines.append(left_out)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
