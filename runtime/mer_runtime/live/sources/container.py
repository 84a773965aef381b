"""One opening of a source: FFmpeg's container, decoded to pictures and sound as they come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from errno import EIO
from pathlib import Path
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

import av

from mer_runtime.inputs.waveform import mix_down
from mer_runtime.live.sources.address import Address
from mer_runtime.live.sources.captured import Picture, Sound, SourceError
from mer_runtime.live.sources.pipe import PipeReader

#: FFmpeg's names of device inputs, and what can take their place where they aren't built in.
DEVICE_FORMATS = {"camera": "v4l2", "microphone": "alsa"}
#: Where ALSA's own files are, for wheels that carry a libasound built elsewhere.
ALSA_VARIABLE = "ALSA_CONFIG_PATH"
ALSA_CONFIG = "/usr/share/alsa/alsa.conf"


class Clock(Protocol):
    """Where a container's time stamps belong on the session's clock."""

    def place(self, stream: int, stamp: float, length: float, arrival: float) -> float: ...


class OpenSource:
    """A source that is open; a context manager.

    Args:
        stop: ends a wait for a pipe.
        video, audio: which streams to read, where it has them.
        timeout: seconds that it may take to open, and then between two packets.

    Raises:
        SourceError: it can't be opened, or has none of these streams.
    """

    def __init__(
        self, address: Address, stop: Event, *, video: bool, audio: bool, timeout: float
    ) -> None:
        self._address, self._timeout = address, timeout
        self._closing = ExitStack()
        try:
            began = monotonic()
            try:
                self._container = self._closing.enter_context(self._open(stop))
            except (av.FFmpegError, OSError, ValueError) as error:
                raise self._error(error, began) from error
            self._video = self._first_video() if video else None
            self._audio = next(
                (s for s in self._container.streams.audio if audio and s.codec_context), None
            )
            if self._video is None and self._audio is None:
                wanted = " or ".join(["video"] * video + ["sound"] * audio)
                raise SourceError(address.name, f"holds no {wanted} that can be decoded")
        except BaseException:
            self._closing.close()
            raise

    @property
    def has_video(self) -> bool:
        return self._video is not None

    @property
    def has_audio(self) -> bool:
        return self._audio is not None

    @property
    def has_end(self) -> bool:
        """Whether its header states how long it is."""
        return bool(self._container.duration)

    def items(self, clock: Clock) -> Iterator[Picture | Sound]:
        """Everything in the order of its decoding; damaged packets are passed over.

        Raises:
            SourceError: it breaks off, or gives nothing for ``timeout`` seconds.
        """
        streams = [s for s in (self._video, self._audio) if s is not None]
        for stream in streams:
            # Threads by frame would hold each frame back by as many frames.
            stream.thread_type = "SLICE" if self._address.live else "AUTO"
        unstamped: dict[int, float] = {}
        asked = monotonic()
        try:
            for packet in self._container.demux(streams):
                arrival, index = monotonic(), packet.stream.index
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    continue
                for frame in frames:
                    stamp = frame.time if frame.time is not None else unstamped.get(index, 0.0)
                    length = _length(frame)
                    unstamped[index] = stamp + (length or 1 / (packet.stream.average_rate or 25))
                    yield _item(frame, clock.place(index, float(stamp), length, arrival))
                asked = monotonic()
        except (av.FFmpegError, OSError) as error:
            raise self._error(error, asked) from error

    def __enter__(self) -> OpenSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def _open(self, stop: Event) -> Any:
        address = self._address
        timeout, options = (self._timeout, self._timeout), dict(address.options)
        if address.kind in DEVICE_FORMATS:
            return self._open_device(options)
        if address.kind == "file":
            _check_file(address)
            return av.open(address.location)
        if address.kind == "url":
            return av.open(address.location, options=options, timeout=timeout)
        if address.kind == "stdin" and os.isatty(0):
            raise SourceError(address.name, "is a terminal: pipe a stream into it")
        return av.open(self._closing.enter_context(PipeReader(address, stop)), options=options)

    def _open_device(self, options: dict[str, str]) -> Any:
        address = self._address
        name = DEVICE_FORMATS[address.kind]
        if not any(name in formats.split(",") for formats in av.formats_available):
            raise SourceError(
                address.name,
                f"PyAV {av.__version__} is built without {name} here: pipe the {address.kind} "
                "into standard input instead, see docs/how-to/live.md",
            )
        timeout = (self._timeout, self._timeout)
        if address.kind == "camera":
            return av.open(address.location, format=name, options=options, timeout=timeout)
        if ALSA_VARIABLE not in os.environ and Path(ALSA_CONFIG).is_file():
            os.environ[ALSA_VARIABLE] = ALSA_CONFIG
        try:
            mono = options | {"channels": "1"}
            return av.open(address.location, format=name, options=mono, timeout=timeout)
        except (av.FFmpegError, OSError):  # hardware that records in stereo only
            return av.open(address.location, format=name, options=options, timeout=timeout)

    def _first_video(self) -> Any:
        cover = av.stream.Disposition.attached_pic
        streams = self._container.streams.video
        return next((s for s in streams if s.codec_context and not s.disposition & cover), None)

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
        elif self._address.kind == "url" and getattr(error, "errno", None) == EIO:
            # FFmpeg's word for an unknown host, and for a stream that ends without its length.
            reason = "can't be reached, or the connection broke off"
        if self._address.kind == "camera" and isinstance(error, FileNotFoundError):
            reason = "there is no such camera"
        elif self._address.kind == "microphone" and isinstance(error, OSError):
            reason = f"can't be opened ({reason}); arecord -L lists what there is"
        return SourceError(self._address.name, reason)


def _check_file(address: Address) -> None:
    path = Path(address.location)
    if path.is_dir():
        raise SourceError(address.name, "is a folder, not a clip")
    if not path.exists():
        raise SourceError(address.name, "there is no such file")


def _length(frame: Any) -> float:
    """Seconds that a chunk of sound lasts; 0 for a picture."""
    return frame.samples / frame.sample_rate if isinstance(frame, av.AudioFrame) else 0.0


def _item(frame: Any, time: float) -> Picture | Sound:
    if isinstance(frame, av.AudioFrame):
        return Sound(mix_down(frame), frame.sample_rate, time)
    return Picture(frame, time)
