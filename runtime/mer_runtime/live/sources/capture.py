"""A source read by a thread of its own, and opened again when it is lost."""

from __future__ import annotations

from threading import Event, Thread
from time import monotonic
from typing import Literal

from mer_runtime.live.sources.address import Address
from mer_runtime.live.sources.captured import (
    Notice,
    Picture,
    Sink,
    Sound,
    SourceError,
    State,
)
from mer_runtime.live.sources.clock import LiveClock, RecordedClock
from mer_runtime.live.sources.container import OpenSource

#: ``live``: as it comes. ``real``: held back to its own pace. ``fast``: as fast as it is taken.
Pace = Literal["live", "real", "fast"]

#: Seconds without anything after which an open source is reported as stalled.
STALL_AFTER = 2.0
#: Seconds that opening may take, and a packet after that, where FFmpeg can be interrupted.
TIMEOUT = 10.0
#: Seconds before a lost source is opened again: first, and at most; each wait doubles.
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0


class Capture:
    """Reads one source into a sink until it ends or is stopped.

    A source that can't be opened at first is an error, so that a mistyped address shows at
    once, unless it is to be waited for. One that is lost later (pulled out, its server gone,
    silent for ``timeout`` seconds) is reported and opened again after 0.5 s, 1 s, 2 s and so on up
    to every 10 s. A recording, that is one with a pace of its own, is not: what it holds ends.

    Args:
        sink: called from the reader's thread. Where it waits, so does the source.
        start: the session's zero, by ``time.monotonic``.
        pace: ``live`` for what goes on by itself; ``real`` or ``fast`` for recordings.
        timeout: seconds a device or server may stay silent before it counts as lost. A pipe
            may for ever.
        patience: seconds to go on trying after a loss; None for ever, 0 not at all.
        wait: whether a source that isn't there at first is waited for as after a loss.
        audio_track: as for ``OpenSource``.
    """

    def __init__(
        self,
        address: Address,
        sink: Sink,
        *,
        start: float,
        pace: Pace,
        video: bool = True,
        audio: bool = True,
        timeout: float = TIMEOUT,
        patience: float | None = None,
        wait: bool = False,
        audio_track: int | None = None,
    ) -> None:
        self.address = address
        self.error: Exception | None = None
        # Of one that is waited for, what it shall have.
        self.has_video, self.has_audio = video, audio
        self.waiting = False
        self._wait = wait
        self._sink, self._start, self._pace = sink, start, pace
        self._video, self._audio = video, audio
        self._timeout, self._patience = timeout, patience
        self._audio_track = audio_track
        self._stop, self._opened, self._go = Event(), Event(), Event()
        self._last: float | None = None  # when something came; None while it isn't open
        self._stalled = False
        # Not waited for at exit: FFmpeg may sit in a read that nothing interrupts.
        self._thread = Thread(target=self._run, name=f"source {address.name}", daemon=True)

    def open(self) -> None:
        """Begin to open the source; ``wait_open`` or ``error`` tell how that went."""
        self._thread.start()

    def wait_open(self, seconds: float) -> bool:
        """Wait a while for the source to open.

        Returns:
            Whether it is open; ``has_video`` and ``has_audio`` are known then.

        Raises:
            SourceError: it can't be opened.
        """
        done = self._opened.wait(seconds)
        if self.error is not None:
            raise self.error
        return done

    def start(self) -> None:
        """Let an open source flow."""
        self._go.set()

    @property
    def running(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive()

    def watch(self) -> None:
        """Report the source if nothing has come for a while; called now and then."""
        last = self._last
        if self._pace != "live" or self._stalled or last is None:
            return
        if monotonic() - last > STALL_AFTER:
            self._stalled = True
            self._note("stalled", f"nothing for {STALL_AFTER:g} s")

    def stop(self) -> None:
        """Ask the reader to end; it does so when what it waits for comes or times out."""
        self._stop.set()
        self._go.set()

    def join(self, seconds: float) -> None:
        """Wait for the reader's end, but no longer than this."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - any, the sink's too: the session raises it
            self.error = error
        finally:
            self._last = None
            self._opened.set()

    def _read(self) -> None:
        wait, lost_at = FIRST_WAIT, monotonic()
        while not self._stop.is_set():
            try:
                received = self._read_once()
                reason = "it ended"
                if self._stop.is_set():
                    return
                if received is None:
                    return
            except SourceError as error:
                if self._stop.is_set():
                    return
                self._raise_unless_awaited(error)
                received, reason = self._last is not None, error.reason
            if received:
                wait, lost_at = FIRST_WAIT, monotonic()
                self._note("lost", reason)
            self._last = None
            if self._patience is not None and monotonic() - lost_at >= self._patience:
                lost = "lost: " if self._opened.is_set() else ""
                raise SourceError(self.address.name, f"{lost}{reason}")
            if not self._opened.is_set() and not self.waiting:
                self.waiting = True
                self._note("waiting", reason)
            self._stop.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _raise_unless_awaited(self, error: SourceError) -> None:
        """Raise the error of a source that trying again can't help, or isn't wanted for."""
        comes_back = self._pace == "live" and self.address.kind != "stdin"
        if not comes_back or not (self._opened.is_set() or self._wait):
            raise error

    def _read_once(self) -> bool | None:
        """Open and read to the end: None if that was all, else whether it opened."""
        with OpenSource(
            self.address,
            self._stop,
            video=self._video,
            audio=self._audio,
            timeout=self._timeout,
            audio_track=self._audio_track,
        ) as source:
            if self._opened.is_set():
                self._note("reopened")
            else:
                self.has_video, self.has_audio = source.has_video, source.has_audio
                # What comes back later has to be what the session was made for.
                self._video, self._audio = source.has_video, source.has_audio
                self._note("opened", source.notes)
                self.waiting = False
                self._opened.set()
                self._go.wait()
            self._last, self._stalled = monotonic(), False
            if self._pace == "live":
                self._pass_on(source, LiveClock(self._start), None)
            else:
                clock = RecordedClock(self._stop, paced=self._pace == "real")
                self._pass_on(source, clock, clock)
            kind = self.address.kind
            ends = (
                self._pace != "live"
                or kind in ("file", "stdin")
                or (kind == "url" and source.has_end)
            )
            if ends and not self._stop.is_set():
                self._note("ended", source.notes)
            return None if ends else True

    def _pass_on(
        self, source: OpenSource, clock: LiveClock | RecordedClock, pacer: RecordedClock | None
    ) -> None:
        for item in source.items(clock):
            self._last = monotonic()
            if self._stalled:
                self._stalled = False
                self._note("resumed")
            if pacer is not None:
                pacer.wait(item.time + item.seconds if isinstance(item, Sound) else item.time)
            if self._stop.is_set():
                return
            if isinstance(item, Picture):
                self._sink.take_picture(item)
            else:
                self._sink.take_sound(item)

    def _note(self, state: State, reason: str = "") -> None:
        now = monotonic() - self._start
        self._sink.take_notice(Notice(self.address.name, state, reason, now))
