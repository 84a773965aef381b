"""The options of ``mer-run``, and what they ask for: clips, a stream, or the self-test."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from mer_runtime import options
from mer_runtime.cli.clip import (
    answer_clips,
    list_clips,
    place_overlays,
    report_self_test,
)
from mer_runtime.cli.config import GIVEN, read_config
from mer_runtime.cli.engine import EngineOptions, load_engine
from mer_runtime.cli.folder import FolderOptions, answer_folder, leave_answered
from mer_runtime.cli.stream_options import refuse_stream_options, stream_options
from mer_runtime.cli.timelines import TimelineOptions, answer_timelines, place_timelines
from mer_runtime.console import Command
from mer_runtime.engines import usable_cores
from mer_runtime.files import check_output
from mer_runtime.live.sources.address import DEFAULT_CAMERA, DEFAULT_MICROPHONE, parse_source
from mer_runtime.options import Results
from mer_runtime.proof.choice import EngineChoice

EPILOG = """\b
Examples:
  mer-run ia-compact-int8 clip.mp4
  mer-run ia-compact-int8 clip.mp4 --overlay answer.png
  mer-run ia-compact-int8 interview.mp4 --timeline answers.csv --faces all
  mer-run ia-compact-int8 recordings/ --jobs 4 --json-out answers.jsonl --resume
  mer-run ia-compact-int8 recordings/ --ray auto --json-out answers.jsonl --resume
  mer-run ia-compact-int8 /dev/video0 --microphone --serve 8080
  mer-run ia-compact-int8 rtsp://camera/stream --json
  gst-launch-1.0 -q ... ! matroskamux ! fdsink | mer-run ia-compact-int8 - --record out.mp4
  mer-run ia-compact-int8 long.mp4 --pace fast --json
  mer-run --config /etc/mer/mer.toml
  mer-run ia-compact-int8 --self-test
"""


@click.command("mer-run", cls=Command, epilog=EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@options.results
@click.option(
    "--overlay",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Of a clip, draw box, label and probabilities: OUT.png, OUT.mp4, or a folder of "
    "pictures where SOURCE is a folder. With --timeline an .mp4 has the whole clip.",
)
@click.option(
    "--timeline",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Answer all of a clip, every 0.48 s, into OUT.csv, OUT.json or OUT.png, and tell what "
    "share of the time each emotion has. Of a folder, into one file for each clip in the folder "
    "OUT, of the kind that OUT ends in.",
)
@options.threads
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Of a folder, answer so many clips at once, with a share of the cores each.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Of a folder, answer its clips on a Ray cluster (extra ray): auto, HOST:PORT, "
    "ray://HOST:PORT, or local, which starts one here. --jobs is how many workers [default: as "
    "many as there is room for], --threads how many CPUs each has [default: 1].",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Of a folder, go on with the FILE of --json-out that an earlier run with this BUNDLE "
    "left: what it answered isn't answered again.",
)
@options.face_detector()
@options.detect_size
@options.backend(
    "Engine [default: the bundle's own]; auto tries those that can run the bundle here, takes the "
    "fastest whose answers are right, and says which."
)
@click.option(
    "--self-test",
    is_flag=True,
    help="Replay the bundle's golden inputs and compare, as its first start on a device does by "
    "itself, unless MER_PROVE=0.",
)
@click.option(
    "--pace",
    type=click.Choice(["real", "fast"]),
    help="Take a recording for a stream: at its own pace, or as fast as possible and dropping "
    "nothing.",
)
@click.option(
    "--camera",
    is_flag=False,
    flag_value=DEFAULT_CAMERA,
    metavar="[DEVICE]",
    help=f"Take the picture from a camera [{DEFAULT_CAMERA}].",
)
@click.option("--camera-mode", metavar="WxH[@RATE]", help="The camera's picture, as 640x480@30.")
@click.option(
    "--microphone",
    is_flag=False,
    flag_value=DEFAULT_MICROPHONE,
    metavar="[DEVICE]",
    help=f"Take the sound from an ALSA device [{DEFAULT_MICROPHONE}].",
)
@stream_options
@read_config
@options.common
@click.pass_context
def main(
    context: click.Context,
    /,
    bundle: Path,
    source: str | None,
    results: Results,
    overlay: Path | None,
    timeline: Path | None,
    threads: int | None,
    jobs: int,
    ray: str | None,
    resume: bool,
    face_detector: Path | None,
    detect_size: int,
    backend: EngineChoice | None,
    self_test: bool,
    pace: Literal["real", "fast"] | None,
    camera: str | None,
    camera_mode: str | None,
    microphone: str | None,
    audio_track: int | None,
    **live: Any,
) -> None:
    """Recognise the emotion in SOURCE with BUNDLE: a folder by mer-export, or the name of one
    that ships, such as ia-compact-int8.

    SOURCE is a clip, a folder of clips, a camera (/dev/video0, or its number), a URL (rtsp://,
    http://, ...), a named pipe, or - for a stream on standard input. Cameras, URLs and pipes are
    answered as they run; Ctrl-C ends that. docs/how-to/live.md tells the rest.

    Exit codes: 0 done, or a stream ended by Ctrl-C; 1 an error, or a clip that can't be read (in
    a folder the rest go on); 2 wrong options.
    """
    engine = EngineOptions(threads, face_detector, detect_size, backend, audio_track)
    if self_test:
        if source is not None:
            raise click.UsageError("give a SOURCE, or --self-test without one")
        report_self_test(load_engine(bundle, engine, prove=False), results)
        return
    if source is None and camera is None and microphone is None:
        raise click.UsageError("give a SOURCE, --camera or --microphone, or --self-test")
    several = FolderOptions(
        jobs if context.get_parameter_source("jobs") in GIVEN else None, ray, resume
    )
    is_file = source is not None and parse_source(source).kind == "file"
    if pace is None and is_file and camera is None and microphone is None and source is not None:
        refuse_stream_options(context, over_time=timeline is not None)
        path = Path(source)
        clips = list_clips(path)
        overlays = place_overlays(overlay, path, clips, whole=timeline is not None)
        if results.out is not None:
            check_output(results.out, *clips)
        several.check(path, results, timeline)
        if timeline is not None:
            placed = place_timelines(timeline, path, clips, results.out, *overlays.values())
            asked = TimelineOptions(placed, overlays, live["faces"], live["hop"])
            parts = max(usable_cores() // min(jobs, len(clips)), 1)
            load = partial(load_engine, bundle, engine._replace(threads=threads or parts))
            answer_timelines(load, clips, asked, jobs, results)
            return
        if resume:
            clips = leave_answered(clips, results)
        if not clips:
            return
        if ray is not None or (jobs > 1 and path.is_dir()):
            answer_folder(bundle, engine, clips, overlays, several, results)
            return
        answer_clips(load_engine(bundle, engine), clips, overlays, results)
        return
    if overlay is not None:
        raise click.UsageError("--overlay is for clips; a stream has --record")
    if timeline is not None:
        raise click.UsageError("--timeline is for clips; a stream has --json-out")
    several.check(None, results, timeline)
    # Here, so that a clip's answer doesn't wait for them: a server's modules take 60 ms to load.
    from mer_runtime.cli.live import LiveOptions, list_inputs, run_live

    wanted = LiveOptions(pace=pace or "live", audio_track=audio_track, **live)
    inputs = list_inputs(source, camera, camera_mode, microphone, wanted)
    wanted.check(inputs)
    run_live(load_engine(bundle, engine), inputs, wanted, results)
