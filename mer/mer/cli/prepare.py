"""``mer-prepare``: a folder of recordings to a cache that training reads."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from mer.data.preparation import Failure, PreparationSummary, prepare_cache
from mer_runtime import options
from mer_runtime.console import Command, progress, warn
from mer_runtime.inputs.listing import describe_left_out
from mer_runtime.options import Results
from mer_runtime.spec import AudioSpec, Spec, VideoSpec


@click.command("mer-prepare", cls=Command)
@click.argument("root", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="CACHE",
    help="Folder of the cache; made if need be.",
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
    root: Path,
    out: Path,
    jobs: int,
    face_detector: Path | None,
    sample_rate: int,
    size: int,
    frames: int,
    window: float,
    results: Results,
) -> None:
    """Decode and crop the recordings under ROOT once, for mer-train and mer-eval.

    ROOT is any folder above files named as RAVDESS names them:

    \b
      Actor_NN/MM-VC-EM-IN-ST-RE-AC.mp4|wav

    Each spoken utterance becomes one clip: its 01- file, else the silent 02- video with the
    voice of the 03- file, else that voice alone. The cache holds the 15 face crops and the
    waveform of each clip's middle 3.6 s: about 2.4 MB a clip, 3.4 GB for RAVDESS's 1 440
    utterances. Crops of 96 pixels take a fifth of that.

    Stopped by Ctrl-C, the same command goes on where it was. Recordings that can't be used are
    listed with the reason and left out; the exit code is 1 only if none could be used.

    \b
    Example:
      mer-prepare RAVDESS --out cache/ravdess
      mer-train cache/ravdess --fusion ia --out runs/ia
    """
    spec = Spec(
        audio=AudioSpec(sample_rate=sample_rate, window=window),
        video=VideoSpec(size=size, frames=frames, window=window),
    )
    failures: list[Failure] = []
    started = time.monotonic()
    try:
        with progress(length=1, label="Preparing clips") as bar:

            def show(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            summary = prepare_cache(
                root,
                out,
                spec=spec,
                face_detector=face_detector,
                jobs=jobs,
                report=failures.append,
                progress=show,
            )
    except KeyboardInterrupt:
        raise click.ClickException(
            f"interrupted; the same command goes on from here (clips are kept in {out})"
        ) from None
    finally:
        for failure in failures:
            warn(f"left out {failure.id}: {failure.error}")
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
    if summary.songs or summary.foreign:
        lines.append(
            f"passed over: {summary.songs} songs, "
            f"{summary.foreign} media files that aren't named as RAVDESS's"
        )
    if left_out := describe_left_out(summary.left_out):
        lines.append(left_out)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
