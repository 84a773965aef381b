"""The options of ``mer-run``, and what they ask for: clips, a stream, or the self-test."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click

from mer_runtime import options
from mer_runtime.cli.clip import (
    answer_clips,
    list_clips,
    place_overlays,
    report_self_test,
)
from mer_runtime.cli.folder import drawing, leave_answered, report_outcomes
from mer_runtime.cluster import answer_on_cluster
from mer_runtime.console import Command, say
from mer_runtime.engines import usable_cores
from mer_runtime.files import check_output
from mer_runtime.jobs import answer_in_parallel
from mer_runtime.live.sources.address import DEFAULT_CAMERA, DEFAULT_MICROPHONE, parse_source
from mer_runtime.live.sources.capture import TIMEOUT
from mer_runtime.options import Results
from mer_runtime.proof.choice import ENGINE_CHOICES, EngineChoice
from mer_runtime.recognizer import Recognizer

EPILOG = """\b
Examples:
  mer-run ia-int8 clip.mp4
  mer-run ia-int8 clip.mp4 --overlay answer.png
  mer-run ia-int8 recordings/ --jobs 4 --json > answers.jsonl
  mer-run ia-int8 /dev/video0 --microphone --serve 8080
  mer-run ia-int8 rtsp://camera/stream --json
  gst-launch-1.0 -q ... ! matroskamux ! fdsink | mer-run ia-int8 - --record out.mp4
  mer-run ia-int8 long.mp4 --pace fast --json
  mer-run ia-int8 --self-test
"""

#: Options that a clip has no use for.
LIVE_ONLY = (
    "hop",
    "smoothing",
    "faces",
    "record",
    "record_every",
    "keep",
    "serve",
    "host",
    "seconds",
    "timeout",
    "reopen_for",
    "video",
    "audio",
)


class _Engine(NamedTuple):
    """What loading a bundle takes, and what it is to listen to."""

    threads: int | None
    face_detector: Path | None
    detect_size: int
    backend: EngineChoice | None
    audio_track: int | None


@click.command("mer-run", cls=Command, epilog=EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@options.results
@click.option(
    "--overlay",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Of a clip, draw box, label and probabilities: OUT.png, OUT.mp4, or a folder of "
    "pictures where SOURCE is a folder.",
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
@click.option(
    "--backend",
    type=click.Choice(ENGINE_CHOICES),
    help="Engine [default: the bundle's own]; auto tries those that can run the bundle here, "
    "takes the fastest whose answers are right, and says which.",
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
@click.option("--video/--no-video", default=True, help="Use the picture.")
@click.option("--audio/--no-audio", default=True, help="Use the sound.")
@click.option(
    "--audio-track",
    type=click.IntRange(min=1),
    metavar="N",
    help="Listen to SOURCE's audio track N, counted from 1 [default: the first with sound].",
)
@click.option(
    "--hop", type=float, metavar="SECONDS", help="From answer to answer [default: two slots, 0.48]."
)
@click.option(
    "--smoothing",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Time constant of an average over answers [default: none].",
)
@click.option(
    "--faces",
    type=click.Choice(["one", "all"]),
    default="one",
    show_default=True,
    help="Follow one face, or answer for each.",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="OUT.mp4",
    help="Record the stream with its answers drawn in.",
)
@click.option(
    "--record-every",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Begin another file so often: OUT-000001.mp4 and so on.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="FILES",
    help="With --record-every, keep the last so many [default: all].",
)
@click.option(
    "--serve",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Show the stream on a page; 0 takes a free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to serve the page on. There is no password: on any other address, everyone in "
    "the network sees the camera.",
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after so long.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="A device or server that is silent for so long counts as lost.",
)
@click.option(
    "--reopen-for",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Try to reopen a lost source for so long [default: for ever; 0: not at all].",
)
@options.common
@click.pass_context
def main(
    context: click.Context,
    /,
    bundle: Path,
    source: str | None,
    results: Results,
    overlay: Path | None,
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
    that ships, such as ia-int8.

    SOURCE is a clip, a folder of clips, a camera (/dev/video0, or its number), a URL (rtsp://,
    http://, ...), a named pipe, or - for a stream on standard input. Cameras, URLs and pipes are
    answered as they run; Ctrl-C ends that. docs/how-to/live.md tells the rest.

    Exit codes: 0 done, or a stream ended by Ctrl-C; 1 an error, or a clip that can't be read (in
    a folder the rest go on); 2 wrong options.
    """
    engine = _Engine(threads, face_detector, detect_size, backend, audio_track)
    if self_test:
        if source is not None:
            raise click.UsageError("give a SOURCE, or --self-test without one")
        report_self_test(_load(bundle, engine, prove=False), results)
        return
    if source is None and camera is None and microphone is None:
        raise click.UsageError("give a SOURCE, --camera or --microphone, or --self-test")
    is_file = source is not None and parse_source(source).kind == "file"
    if pace is None and is_file and camera is None and microphone is None and source is not None:
        _refuse_live_options(context)
        path = Path(source)
        clips = list_clips(path)
        overlays = place_overlays(overlay, path, clips)
        if results.out is not None:
            check_output(results.out, *clips)
        _check_folder_options(ray, resume, path, results)
        if resume:
            clips = leave_answered(clips, results)
        count, draw = len(clips), drawing(overlays)
        if ray is not None and clips:
            cpus = threads or 1
            # Workers have a working folder of their own.
            load = partial(_load, absolute(bundle), engine._replace(threads=cpus))
            given = context.get_parameter_source("jobs") is not click.core.ParameterSource.DEFAULT
            workers = jobs if given else None
            on_cluster = answer_on_cluster(clips, ray, load, draw, workers=workers, threads=cpus)
            report_outcomes(on_cluster, count, results)
            return
        if jobs > 1 and path.is_dir():
            share = engine._replace(threads=threads or max(usable_cores() // jobs, 1))
            load = partial(_load, bundle, share)
            report_outcomes(answer_in_parallel(clips, jobs, load, draw), count, results)
            return
        if not clips:
            return
        recognizer = _load(bundle, engine)
        answer_clips(recognizer, clips, overlays, results)
        return
    if overlay is not None:
        raise click.UsageError("--overlay is for clips; a stream has --record")
    if ray is not None or resume:
        raise click.UsageError("--ray and --resume are for a folder of clips")
    # Here, so that a clip's answer doesn't wait for them: a server's modules take 60 ms to load.
    from mer_runtime.cli.live import LiveOptions, list_inputs, run_live

    wanted = LiveOptions(pace=pace or "live", audio_track=audio_track, **live)
    inputs = list_inputs(source, camera, camera_mode, microphone, wanted)
    wanted.check(inputs)
    run_live(_load(bundle, engine), inputs, wanted, results)


def _load(bundle: Path, engine: _Engine, *, prove: bool = True) -> Recognizer:
    asked = engine._asdict()
    track = asked.pop("audio_track")
    recognizer = Recognizer.load(bundle, prove=prove, **asked)
    recognizer.audio_track = track
    for name, result in recognizer.considered.items():
        say(f"{name}: {result}", err=True)
    if engine.backend is not None:
        say(f"Backend: {recognizer.backend.name}", err=True)
    return recognizer


def absolute(path: Path) -> Path:
    """A path that leads to the same from any folder; a bundle's name stays that."""
    return path.absolute() if path.exists() else path


def _check_folder_options(ray: str | None, resume: bool, source: Path, results: Results) -> None:
    """Refuse options that have no use here, as they would be passed over in silence."""
    for option, given in (("--ray", ray is not None), ("--resume", resume)):
        if given and not source.is_dir():
            raise click.UsageError(f"{option} is for a folder of clips")
    if resume and results.out is None:
        raise click.UsageError("--resume goes on with the FILE of --json-out: name it")


def _refuse_live_options(context: click.Context) -> None:
    """A clip gets one answer; what only a stream has would be passed over in silence."""
    given = [
        name
        for name in (*LIVE_ONLY, "camera_mode")
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        parameter = next(p for p in context.command.params if p.name == given[0])
        option = (parameter.secondary_opts or parameter.opts)[
            0
        ]  # of --audio/--no-audio, the latter
        raise click.UsageError(
            f"{option} is for streams: with --pace real or --pace fast a file is one"
        )
