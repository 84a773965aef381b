"""The options of ``mer-run`` that a stream has, and what a clip refuses of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mer_runtime.cli.config import GIVEN
from mer_runtime.live.sources.capture import TIMEOUT

#: Options of answers over time: a stream's, and a clip's timeline.
OVER_TIME = ("hop", "faces")
#: Options that a clip has no use for.
LIVE_ONLY = (
    "smoothing",
    "record",
    "record_every",
    "keep",
    "serve",
    "host",
    "seconds",
    "timeout",
    "reopen_for",
    "wait",
    "video",
    "audio",
)

OPTIONS = (
    click.option("--video/--no-video", default=True, help="Use the picture."),
    click.option("--audio/--no-audio", default=True, help="Use the sound."),
    click.option(
        "--audio-track",
        type=click.IntRange(min=1),
        metavar="N",
        help="Listen to SOURCE's audio track N, counted from 1 [default: the first with sound].",
    ),
    click.option(
        "--hop",
        type=float,
        metavar="SECONDS",
        help="From answer to answer [default: two slots, 0.48].",
    ),
    click.option(
        "--smoothing",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Time constant of an average over answers [default: none].",
    ),
    click.option(
        "--faces",
        type=click.Choice(["one", "all"]),
        default="one",
        show_default=True,
        help="Follow one face, or answer for each.",
    ),
    click.option(
        "--record",
        type=click.Path(path_type=Path),
        metavar="OUT.mp4",
        help="Record the stream with its answers drawn in.",
    ),
    click.option(
        "--record-every",
        type=click.FloatRange(min=1),
        metavar="SECONDS",
        help="Begin another file so often: OUT-000001.mp4 and so on.",
    ),
    click.option(
        "--keep",
        type=click.IntRange(min=1),
        metavar="FILES",
        help="With --record-every, keep the last so many [default: all].",
    ),
    click.option(
        "--serve",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="Show the stream on a page, with /health and /metrics for those who watch a service; "
        "0 takes a free port.",
    ),
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        help="Address to serve the page on. There is no password: on any other address, everyone "
        "in the network sees the camera.",
    ),
    click.option(
        "--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after so long."
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="A device or server that is silent for so long counts as lost.",
    ),
    click.option(
        "--reopen-for",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Try to reopen a lost source for so long [default: for ever; 0: not at all].",
    ),
    click.option(
        "--wait",
        is_flag=True,
        help="Wait for a source that isn't there yet, too, instead of ending with an error.",
    ),
)


def stream_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``OPTIONS``."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def refuse_stream_options(context: click.Context, *, over_time: bool) -> None:
    """Refuse of a clip what only a stream has, as it would be passed over in silence.

    Args:
        over_time: the clip's answers are over time, too.

    Raises:
        click.UsageError: names one.
    """
    refused = (*LIVE_ONLY, *(() if over_time else OVER_TIME), "camera_mode")
    given = [name for name in refused if context.get_parameter_source(name) in GIVEN]
    if given:
        parameter = next(p for p in context.command.params if p.name == given[0])
        # Of --audio/--no-audio, the latter.
        option = (parameter.secondary_opts or parameter.opts)[0]
        also = " and for --timeline" if given[0] in OVER_TIME else ""
        raise click.UsageError(
            f"{option} is for streams{also}: with --pace real or --pace fast a file is one"
        )
