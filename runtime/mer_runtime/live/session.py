"""A live session: sources into a stream recogniser, its events out, recorded and shown."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import or_
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Literal

from mer_runtime.errors import OutputError
from mer_runtime.live.monitor import Monitor
from mer_runtime.live.page import PageServer
from mer_runtime.live.recording import Recorder, check_recording
from mer_runtime.live.sources import Address, Capture, Notice, Pace, Picture, Sound
from mer_runtime.model import Model
from mer_runtime.stream import StreamEvent, StreamRecognizer, StreamStatistics

#: Seconds between two looks at the sources and at whether to stop.
TICK = 0.1
#: Seconds for which a face's last answer is drawn into pictures that follow it, beyond a hop.
SHOWN_FOR = 1.0
#: Seconds that a source has to end when it is told to; one in a read of FFmpeg's takes longer.
FAREWELL = 1.0


@dataclass(frozen=True)
class Input:
    """A source, and what is wanted of it.

    ``audio_track`` counts from 1; by default it is the first in which there has been a voice,
    or any sound while no track has had one.
    """

    address: Address
    video: bool = True
    audio: bool = True
    audio_track: int | None = None


class LiveSession:
    """Runs a bundle on sources that go on by themselves, or on a recording as if it did.

    ``run`` gives events and notices; everything else happens in threads of the sources, of the
    engine, of the recorder and of the page's viewers. Times count from the session's start, for
    a recording from its own.

    Args:
        inputs: pictures and sound from two devices are put on one clock.
        pace: ``live`` for devices, pipes and URLs; ``real`` or ``fast`` for one recording.
        hop, smoothing, faces: as for ``StreamRecognizer``.
        record: an MP4 to write, with the answers drawn into it.
        record_every, keep: see ``Recorder``'s ``every`` and ``keep``.
        page: shows the session; the caller closes it.
        timeout, patience, wait: as for ``Capture``. Of two sources one may be waited for while
            the other is answered.

    Attributes:
        monitor: how it is doing; the page's ``/health`` and ``/metrics`` tell it.

    Raises:
        OutputError: ``record`` isn't an .mp4 that can be written.
    """

    def __init__(
        self,
        recognizer: Model,
        inputs: Sequence[Input],
        *,
        pace: Pace = "live",
        hop: float | None = None,
        smoothing: float = 0.0,
        faces: Literal["one", "all"] = "one",
        record: str | Path | None = None,
        record_every: float | None = None,
        keep: int | None = None,
        page: PageServer | None = None,
        timeout: float = 10.0,
        patience: float | None = None,
        wait: bool = False,
    ) -> None:
        self._recognizer, self._pace = recognizer, pace
        self._hop = hop
        seconds = hop or 2 * recognizer.spec.video.slot
        # An answer is drawn for as long as the next one may take.
        self._shown_for = SHOWN_FOR + seconds
        self._smoothing, self._faces = smoothing, faces
        self._record = None if record is None else check_recording(record)
        self._every, self._keep = record_every, keep
        self._page = page
        self._out: SimpleQueue[StreamEvent | Notice] = SimpleQueue()
        self._answers: dict[int | None, StreamEvent] = {}
        self._answers_lock = Lock()
        self._stop = Event()
        start = monotonic()
        self._captures = [
            Capture(
                source.address,
                self,
                start=start,
                pace=pace,
                video=source.video,
                audio=source.audio,
                timeout=timeout,
                patience=patience,
                wait=wait,
                audio_track=source.audio_track,
            )
            for source in inputs
        ]
        self._audio_track: int | None = None
        about = {"bundle": recognizer.bundle.path.name, "backend": recognizer.backend.name}
        self.monitor = Monitor(
            seconds, lambda: self.statistics, lambda: self.frames_not_recorded, about
        )
        if page is not None:
            page.monitor = self.monitor
        self._stream: StreamRecognizer | None = None
        self._reader: Thread | None = None
        self._failure: Exception | None = None
        self._recorder: Recorder | None = None

    @property
    def statistics(self) -> StreamStatistics:
        """What the stream has taken in, lost and spent."""
        return self._stream.statistics if self._stream else StreamStatistics()

    @property
    def frames_not_recorded(self) -> int:
        """Pictures and chunks of sound for which the recorder had no time."""
        return self._recorder.dropped if self._recorder else 0

    @property
    def recorded(self) -> bool:
        """Whether a recording was begun."""
        return self._recorder is not None

    def stop(self) -> None:
        """End the session soon, as if its sources had ended. From any thread or a signal."""
        self._stop.set()

    def run(
        self, seconds: float | None = None, *, on_tick: Callable[[], None] = lambda: None
    ) -> Generator[StreamEvent | Notice, None, None]:
        """Open the sources and give what happens until they end, or ``stop``.

        The recording is finished when the iterator is, however it ends.

        Args:
            seconds: stop by itself after this long.
            on_tick: called several times a second in the iterating thread.

        Raises:
            SourceError: a source can't be opened, or was lost and ``patience`` is over.
            OutputError: the recording can't be written.
            SpecError: ``hop`` isn't a multiple of the slot.
        """
        try:
            yield from self._open(seconds, on_tick)
            until = None if seconds is None else monotonic() + seconds
            while not self._stop.is_set() and (until is None or monotonic() < until):
                on_tick()
                running = [c for c in self._captures if c.running]
                yield from self._waiting(TICK)
                for capture in self._captures:
                    capture.watch()
                    self._failure = self._failure or capture.error
                if self._failure is not None:
                    yield from self._waiting(0)  # the loss comes before the end
                    raise self._failure
                if not running:
                    break
            self._end_captures()
            yield from self._waiting(0)
            if self._stream is not None:
                self._stream.finish()
                if self._reader is not None:
                    self._reader.join()
                yield from self._waiting(0)
        except BaseException:
            # What ends the session is said, not that there's nothing to record.
            with suppress(OutputError):
                self._close()
            raise
        self._close()

    def take_picture(self, picture: Picture) -> None:
        if self._stream is None:
            return
        self._stream.push_frame(picture.image, picture.time)
        if self._recorder is not None:
            self._recorder.add(picture, self._drawn(picture.time))
        if self._page is not None:
            self._page.board.show(picture, self._drawn(picture.time))

    def take_sound(self, sound: Sound) -> None:
        if self._stream is None:
            return
        self._audio_track = sound.track
        samples = sound.samples if sound.channels is None else sound.channels
        self._stream.push_audio(samples, sound.rate, sound.time, channels_last=False)
        if self._recorder is not None:
            self._recorder.add(sound, self._drawn(sound.time))

    def take_notice(self, notice: Notice) -> None:
        self.monitor.take_notice(notice)
        self._out.put(notice)
        if self._page is not None:
            self._page.board.tell("source", notice.to_dict())

    def _take_event(self, event: StreamEvent) -> None:
        event = replace(event, audio_track=self._audio_track)
        self.monitor.take_event(event)
        with self._answers_lock:
            self._answers[event.track] = event
        self._out.put(event)
        if self._page is not None:
            self._page.board.tell("answer", event.to_dict())

    def _read_events(self) -> None:
        if self._stream is None:
            return
        try:
            for event in self._stream.events():
                self._take_event(event)
        except Exception as error:  # noqa: BLE001 - any: the session raises it
            self._failure = error

    def _drawn(self, time: float) -> tuple[StreamEvent, ...]:
        """The latest answer of each face that still counts, the first face's first."""
        with self._answers_lock:
            self._answers = {
                track: event
                for track, event in self._answers.items()
                if abs(time - event.time) <= self._shown_for
            }
            latest = max((event.time for event in self._answers.values()), default=0.0)
            # A hop's answers, one for each face, all have its time.
            current = [event for event in self._answers.values() if event.time == latest]
        return tuple(sorted(current, key=lambda event: (event.track is None, event.track)))

    def _open(
        self, seconds: float | None, on_tick: Callable[[], None]
    ) -> Iterator[StreamEvent | Notice]:
        """Open the sources; those that are waited for hold up none of the others."""
        until = None if seconds is None else monotonic() + seconds
        for capture in self._captures:
            capture.open()
        while True:
            on_tick()
            yield from self._waiting(TICK)
            opened = [capture.wait_open(0) for capture in self._captures]
            waiting = [capture.waiting for capture in self._captures]
            if any(opened) and all(map(or_, opened, waiting)):
                break
            if until is not None and any(waiting) and monotonic() > until:
                self.stop()
            if self._stop.is_set():
                return
        live = self._pace != "fast"
        video = any(capture.has_video for capture in self._captures)
        audio = any(capture.has_audio for capture in self._captures)
        if self._page is not None:
            self._page.board.announce(video=video, audio=audio)
        self._stream = StreamRecognizer(
            self._recognizer,
            hop=self._hop,
            smoothing=self._smoothing,
            faces=self._faces,
            live=live,
            video=video,
            audio=audio,
            on_event=None if live else self._take_event,
        )
        if live:
            self._reader = Thread(target=self._read_events, name="events", daemon=True)
            self._reader.start()
        if self._record is not None:
            self._recorder = Recorder(
                self._record,
                video=video,
                audio=audio,
                live=live,
                every=self._every,
                keep=self._keep,
            )
        for capture in self._captures:
            capture.start()

    def _waiting(self, patience: float) -> Iterator[StreamEvent | Notice]:
        """All that has come; at first, wait for something for a while."""
        try:
            yield self._out.get(timeout=patience) if patience else self._out.get_nowait()
            while True:
                yield self._out.get_nowait()
        except Empty:
            return

    def _end_captures(self) -> None:
        for capture in self._captures:
            capture.stop()
        for capture in self._captures:
            capture.join(FAREWELL)

    def _close(self) -> None:
        self.monitor.end()
        self._end_captures()
        try:
            if self._stream is not None:
                self._stream.close()
        finally:
            if self._recorder is not None:
                self._recorder.close()
