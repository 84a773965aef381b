"""Live mode of ``mer-run``: a session's events and notices as text or JSON lines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import click

from mer_runtime.console import escape_name, say
from mer_runtime.errors import SpecError
from mer_runtime.interrupts import ENDING
from mer_runtime.live.page import PageServer
from mer_runtime.live.recording import check_recording
from mer_runtime.live.session import Input, LiveSession
from mer_runtime.live.sources import Notice, Pace, parse_source
from mer_runtime.live.sources import camera as camera_address
from mer_runtime.live.sources import microphone as microphone_address
from mer_runtime.live.systemd import Watchdog, notify
from mer_runtime.options import Results
from mer_runtime.recognizer import Recognizer
from mer_runtime.stream import StreamEvent


@dataclass(frozen=True)
class LiveOptions:
    """The command line's, by their names there."""

    pace: Pace
    hop: float | None
    smoothing: float
    faces: Literal["one", "all"]
    record: Path | None
    record_every: float | None
    keep: int | None
    serve: int | None
    host: str
    seconds: float | None
    timeout: float
    reopen_for: float | None
    wait: bool
    video: bool
    audio: bool
    audio_track: int | None = None

    def check(self, inputs: Sequence[Input]) -> None:
        """Refuse what can't be written before anything is loaded.

        Raises:
            OutputError: the recording can't be written, or is a source.
        """
        every = self.record_every is not None
        _require(self.record is not None or not every, "--record-every goes with --record")
        _require(every or self.keep is None, "--keep goes with --record-every")
        if self.record is not None:
            check_recording(self.record, *(source.address.name for source in inputs))


def list_inputs(
    source: str | None,
    camera: str | None,
    mode: str | None,
    microphone: str | None,
    options: LiveOptions,
) -> list[Input]:
    """What to open, and what to take from it: a camera's or microphone's own kind goes first.

    Raises:
        click.UsageError: these sources don't go together.
    """
    _require(options.video or options.audio, "--no-video --no-audio leaves nothing")
    _require(
        source is not None or microphone is None or not _is_source(microphone),
        f"--microphone took {microphone} for its device: write it after SOURCE",
    )
    _require(
        source is not None or camera is None or _is_camera(camera),
        f"--camera took {camera} for its device: write it after SOURCE",
    )
    inputs = []
    if source is not None:
        address = parse_source(source)
        if address.kind == "camera":
            _require(camera is None, "SOURCE is a camera already: leave out --camera")
            camera, source = source, None
        else:
            video, audio = options.video and camera is None, options.audio and microphone is None
            alone = camera is None and microphone is None
            _require(alone or address.live, "a file has its own clock: no camera or microphone")
            _require(video or audio, "nothing is left of SOURCE beside these devices")
            inputs.append(Input(address, video, audio, options.audio_track if audio else None))
    _require(
        options.audio_track is None or any(i.audio for i in inputs),
        "--audio-track is for a SOURCE with sound",
    )
    if camera is not None:
        _require(options.video, "a camera and --no-video leave nothing")
        try:
            inputs.append(Input(camera_address(camera, mode), audio=False))
        except SpecError as error:
            raise click.UsageError(str(error)) from error
    else:
        _require(mode is None, "--camera-mode needs a camera")
    if microphone is not None:
        _require(options.audio, "a microphone and --no-audio leave nothing")
        inputs.append(Input(microphone_address(microphone), video=False))
    devices = any(i.address.kind in ("camera", "microphone") for i in inputs)
    _require(
        options.pace == "live" or not devices, "--pace is for recordings: a device has its own"
    )
    return inputs


def run_live(
    recognizer: Recognizer, inputs: list[Input], options: LiveOptions, results: Results
) -> None:
    """Print what a session gives until it ends, or Ctrl-C or a signal ends it."""
    page = None
    if options.serve is not None:
        page = PageServer(options.serve, options.host, _greeting(recognizer, inputs))
        say(f"Page: {page.url}", err=True)
    try:
        session = LiveSession(
            recognizer,
            inputs,
            pace=options.pace,
            hop=options.hop,
            smoothing=options.smoothing,
            faces=options.faces,
            record=options.record,
            record_every=options.record_every,
            keep=options.keep,
            page=page,
            timeout=options.timeout,
            patience=options.reopen_for,
            wait=options.wait,
        )
        watchdog = Watchdog()

        def beat() -> None:
            if not session.monitor.stuck:
                watchdog.beat()

        run = session.run(options.seconds, on_tick=beat)
        with _ended_by_signals(session), closing(run) as happenings:
            for happening in happenings:
                if isinstance(happening, Notice):
                    _report_notice(happening, results)
                else:
                    results.tell(happening.to_dict(), _format_event(happening))
        _report_end(session, options, results)
    finally:
        notify("STOPPING=1")
        if page is not None:
            page.close()


@contextmanager
def _ended_by_signals(session: LiveSession) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end a session in good order; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        session.stop()
        for taken, handler in before.items():
            signal.signal(taken, handler)

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, *ENDING):
        handler = signal.getsignal(number)
        if handler is not signal.SIG_IGN:  # so that nohup and & keep their meaning
            before[number] = handler
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(recognizer: Recognizer, inputs: list[Input]) -> dict[str, Any]:
    return {
        "bundle": recognizer.bundle.path.name,
        "backend": recognizer.backend.name,
        "sources": [source.address.name for source in inputs],
        "labels": list(recognizer.spec.labels),
        "window": recognizer.spec.video.window,
    }


def _format_event(event: StreamEvent) -> str:
    face = f"  face {event.track}" if event.track is not None else ""
    if event.label is None:
        return f"{event.time:8.2f} s  neither face nor voice"
    missing = [name for name, there in (("face", event.face), ("voice", event.voice)) if not there]
    notes = [f"no {' or '.join(missing)}"] if missing else []
    if event.filled < 1:
        notes.append(f"window {event.filled:.0%} filled")
    note = f"  ({', '.join(notes)})" if notes else ""
    probability = event.probabilities[event.label]
    return (
        f"{event.time:8.2f} s  {escape_name(event.label):<10} {probability:6.1%}{face}  "
        f"{1000 * event.age:.0f} ms{note}"
    )


def _report_notice(notice: Notice, results: Results) -> None:
    # A service is ready as soon as it waits for its sources: they may take for ever.
    notify("READY=1", f"STATUS={notice.source} {notice.state}")
    results.tell(notice.to_dict())
    if not results.as_json or notice.state not in ("opened", "ended"):
        reason = f": {notice.reason}" if notice.reason else ""
        say(f"{escape_name(notice.source)} {notice.state}{reason}", err=True)


def _report_end(session: LiveSession, options: LiveOptions, results: Results) -> None:
    statistics = session.statistics
    results.tell({"statistics": statistics.to_dict()})
    if not results.as_json:
        say(
            f"{statistics.events} answers; {statistics.frames} frames, {statistics.dropped} "
            f"dropped; {sum(statistics.cpu_seconds.values()):.1f} s of CPU",
            err=True,
        )
    if session.recorded:
        lost = session.frames_not_recorded
        note = f", {lost} pictures and chunks left out: encoding was behind" if lost else ""
        say(f"Recorded {options.record}{note}", err=True)


def _is_source(text: str) -> bool:
    return parse_source(text).kind in ("camera", "url", "stdin") or Path(text).exists()


def _is_camera(text: str) -> bool:
    return parse_source(text).kind == "camera" or not _is_source(text)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise click.UsageError(problem)
