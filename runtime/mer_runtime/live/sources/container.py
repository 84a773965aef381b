"""One opening of a source: FFmpeg's container, decoded to pictures and sound as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from errno import EIO
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Literal, Protocol

import av

from mer_runtime.closing import Closing
from mer_runtime.errors import MediaError
from mer_runtime.inputs.container import open_file, open_pipe, open_url, pixel_aspect
from mer_runtime.inputs.media_file import check_file
from mer_runtime.inputs.picture import FrameDrawer
from mer_runtime.inputs.sparing import SparingChoice
from mer_runtime.inputs.streams import MediaStreams
from mer_runtime.inputs.timeline import Timeline
from mer_runtime.inputs.waveform import frame_samples, mix_samples
from mer_runtime.live.sources.address import Address
from mer_runtime.live.sources.captured import Picture, Sound, SourceError
from mer_runtime.live.sources.devices import (
    MEDIA,
    is_built_in,
    open_device,
    plan_opening,
    tell_devices,
)
from mer_runtime.live.sources.pipe import PipeReader
from mer_runtime.live.sources.tracks import TrackChoice

#: Seconds for which a recording may hold nothing; where its clock leaps by more, it is closed.
LONGEST_HOLE = 3600.0


class Clock(Protocol):
    """Where a container's time stamps belong on the session's clock.

    Attributes:
        recorded: whether they are a recording's, for which nothing but themselves tells.
    """

    recorded: bool

    def place(self, stream: int, stamp: float, length: float, arrival: float) -> float: ...


class OpenSource(Closing):
    """A source that is open; a context manager.

    Args:
        stop: ends a wait for a pipe.
        video, audio: which streams to read, where it has them.
        timeout: seconds that it may take to open, and then between two packets.
        audio_track: the track to listen to, counted from 1; by default the first in which there
            has been a voice, else any sound.

    Raises:
        SourceError: it can't be opened, or has none of these streams or no such track.
    """

    def __init__(
        self,
        address: Address,
        stop: Event,
        *,
        video: bool,
        audio: bool,
        timeout: float,
        audio_track: int | None = None,
    ) -> None:
        self._address, self._timeout = address, timeout
        self._closing = ExitStack()
        try:
            began = monotonic()
            try:
                self._container = self._closing.enter_context(self._open(stop))
            except (av.FFmpegError, OSError, ValueError) as error:
                raise self._error(error, began) from error
            try:
                self._streams = MediaStreams(
                    address.name, self._container, audio_track, video=video, audio=audio
                )
            except MediaError as error:
                raise SourceError(address.name, error.reason) from error
            if not self._streams.all:
                wanted = " or ".join(["video"] * video + ["sound"] * audio)
                faults = f" ({self.notes})" if self.notes else ""
                raise SourceError(address.name, f"holds no {wanted} that can be decoded{faults}")
        except BaseException:
            self._closing.close()
            raise

    @property
    def has_video(self) -> bool:
        return self._streams.video is not None

    @property
    def has_audio(self) -> bool:
        return bool(self._streams.tracks)

    @property
    def notes(self) -> str:
        """What of it couldn't be read so far, and why; empty where there is nothing to say."""
        return "; ".join(self._streams.notes)

    @property
    def duration(self) -> float | None:
        """Seconds that its header says it takes; None where that says nothing."""
        return self._container.duration / av.time_base if self._container.duration else None

    @property
    def has_end(self) -> bool:
        """Whether its header states how long it is."""
        return self.duration is not None

    def items(
        self, clock: Clock, sparing: SparingChoice | None = None
    ) -> Iterator[Picture | Sound]:
        """Everything in the order of its decoding; damaged packets are passed over.

        Args:
            sparing: of a recording: leaves out pictures that nobody will look at.

        Raises:
            SourceError: it breaks off, or gives nothing for ``timeout`` seconds.
        """
        streams = self._streams
        choice = TrackChoice(streams.tracks)
        drawer = FrameDrawer(1.0 if streams.video is None else pixel_aspect(streams.video))
        asked = arrival = monotonic()

        def arriving() -> Iterator[Any]:
            nonlocal asked, arrival
            for packet in streams.read_packets():
                arrival = monotonic()
                yield packet
                asked = monotonic()

        packets = Timeline(LONGEST_HOLE).follow(arriving()) if clock.recorded else arriving()
        needs: Callable[[Any], bool] = lambda packet: True  # noqa: E731
        if sparing is not None:
            packets, needs = sparing.follow(packets), sparing.needs
        # Threads by frame would hold each frame back by as many frames.
        threads: Literal["AUTO", "SLICE"] = "SLICE" if self._address.live else "AUTO"
        try:
            for stream, frame, stamp in streams.decode(packets, needs, threads=threads):
                if isinstance(stream, av.VideoStream):
                    time = clock.place(stream.index, stamp, 0.0, arrival)
                    yield Picture(frame, time, drawer)
                elif choice.takes(stream, frame):
                    length = frame.samples / frame.sample_rate
                    time = clock.place(stream.index, stamp, length, arrival)
                    yield _make_sound(frame, time, choice.number)
        except (av.FFmpegError, OSError) as error:
            raise self._error(error, asked) from error

    def close(self) -> None:
        self._closing.close()

    def _open(self, stop: Event) -> Any:
        address = self._address
        timeout, options = (self._timeout, self._timeout), dict(address.options)
        if address.kind == "camera" or address.kind == "microphone":
            opening = plan_opening(address.kind, address.location, options)
            if not is_built_in(opening.format):
                raise SourceError(
                    address.name,
                    f"PyAV {av.__version__} is built without {opening.format} here: pipe the "
                    f"{address.kind} into standard input instead, see docs/how-to/live.md",
                )
            return open_device(opening, timeout)
        if address.kind == "file":
            try:
                check_file(Path(address.location))
            except MediaError as error:
                raise SourceError(address.name, error.reason) from error
            return open_file(address.location)
        if address.kind == "url":
            return open_url(address.location, options, timeout)
        if address.kind == "stdin" and os.isatty(0):
            raise SourceError(address.name, "is a terminal: pipe a stream into it")
        return open_pipe(self._closing.enter_context(PipeReader(address, stop)), options)

    def _error(self, error: Exception, since: float) -> SourceError:
        if isinstance(error, SourceError):
            return error
        # Without FFmpeg's own text, in which a URL's password stands.
        reason = getattr(error, "strerror", None) or type(error).__name__
        waited = self._address.kind != "file" and monotonic() - since >= self._timeout - 0.1
        if isinstance(error, av.ExitError) or waited:
            reason = f"doesn't answer for {self._timeout:g} s"
        elif isinstance(error, av.InvalidDataError):
            reason = "not a media stream, or damaged"
        elif isinstance(error, av.ArgumentError) and self._address.kind not in MEDIA:
            reason = "not a kind of media that is read here"
        elif self._address.kind == "url" and getattr(error, "errno", None) == EIO:
            # FFmpeg's word for an unknown host, and for a stream that ends without its length.
            reason = "can't be reached, or the connection broke off"
        kind = self._address.kind
        if kind == "camera" and isinstance(error, FileNotFoundError):
            reason = f"there is no such camera; {tell_devices(kind)}"
        elif kind == "microphone" and isinstance(error, OSError):
            reason = f"can't be opened ({reason}); {tell_devices(kind)}"
        return SourceError(self._address.name, reason)


def _make_sound(frame: Any, time: float, track: int) -> Sound:
    channels = frame_samples(frame)
    several = channels if len(channels) > 1 else None
    return Sound(mix_samples(channels, frame.sample_rate), frame.sample_rate, time, several, track)
