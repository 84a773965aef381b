"""A container's picture and its audio tracks: those within bounds, decoded side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import av

from mer_runtime.errors import MediaError
from mer_runtime.inputs.container import (
    MAX_PIXELS,
    MAX_TRACKS,
    SAMPLE_RATES,
    bound_decoder,
    describe_excess,
    find_audio,
    find_video,
)


class MediaStreams:
    """The streams of an open container that are read. One's trouble isn't the other's.

    Args:
        source: for errors.
        track: the audio track to read, counted from 1; all of them by default.
        video, audio: which kinds to read.

    Attributes:
        video: the stream, or None.
        tracks: audio streams by their number, counted from 1.

    Raises:
        MediaError: there is no such track.
    """

    def __init__(
        self,
        source: str | Path,
        container: Any,
        track: int | None,
        *,
        video: bool = True,
        audio: bool = True,
    ) -> None:
        self._container = container
        self._left_out: list[str] = []
        self._given: set[int] = set()  # streams of which packets were given to a decoder
        self._decoded: set[int] = set()  # and those of which frames came
        self._faults: dict[int, tuple[int, str]] = {}  # how many, and the first
        self._broken_off = ""
        self.video = self._admit(find_video(container) if video else None, "video")
        tracks = dict(enumerate(find_audio(container) if audio else [], 1))
        if audio and track is not None and track not in tracks:
            raise MediaError(source, f"has no audio track {track}, but {len(tracks) or 'none'}")
        self.tracks = {
            number: stream
            for number, stream in tracks.items()
            if (number <= MAX_TRACKS if track is None else number == track)
            and self._admit(stream, f"audio track {number}") is not None
        }

    @property
    def all(self) -> list[Any]:
        """What is read."""
        return [s for s in (self.video, *self.tracks.values()) if s is not None]

    @property
    def timing(self) -> list[Any]:
        """What a clip's beginning and end go by: the picture and the first track."""
        return [s for s in (self.video, *list(self.tracks.values())[:1]) if s is not None]

    @property
    def notes(self) -> tuple[str, ...]:
        """What couldn't be read so far, and why. Ask while the container is open."""
        notes = list(self._left_out)
        for stream in self.all:
            seen = stream is self.video
            kind = "video" if seen else "sound"
            count, reason = self._faults.get(stream.index, (0, "nothing comes of it"))
            if seen and not stream.codec_context.width:
                reason = f"damaged, or more than {MAX_PIXELS} pixels"
            if stream.index in self._given - self._decoded:
                notes.append(f"its {kind} can't be decoded ({reason})")
            elif count:
                notes.append(f"its {kind} is damaged in {count} places ({reason})")
        return (*notes, self._broken_off) if self._broken_off else tuple(notes)

    def demux(self) -> Iterator[Any]:
        """Packets of all streams; where the file breaks off, that is its end."""
        try:
            yield from self.read_packets()
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self._broken_off = f"the file breaks off ({error.strerror})"

    def read_packets(self) -> Iterator[Any]:
        """The same, where breaking off is an error.

        Raises:
            av.FFmpegError, OSError: it can't be read on.
        """
        if self.all:  # given none, PyAV takes every stream, of data and subtitles as well
            yield from self._container.demux(self.all)

    def decode(
        self,
        packets: Iterable[Any],
        needs: Callable[[Any], bool] = lambda packet: True,
        is_full: Callable[[Any], bool] = lambda stream: False,
        threads: Literal["AUTO", "SLICE"] = "AUTO",
    ) -> Iterator[tuple[Any, Any, float]]:
        """Frames with their streams and times; what is damaged is passed over, and noted.

        Args:
            needs: whether a packet's picture matters; of others, the decoder leaves out those that
                no picture is predicted from.
            is_full: whether nothing more is wanted of a stream.
            threads: as in PyAV: how a decoder may share its work.
        """
        step = 0.0
        for stream in self.all:
            stream.thread_type = threads
            bound_decoder(stream)
        if self.video is not None:
            step = float(1 / (self.video.average_rate or 25))
        clock: dict[int, float] = {}
        for packet in packets:
            stream = packet.stream
            if is_full(stream):
                if all(is_full(s) for s in self.all):
                    return
                continue
            if self.video is not None and stream is self.video:
                self.video.codec_context.skip_frame = "DEFAULT" if needs(packet) else "NONREF"
            if packet.size:
                self._given.add(stream.index)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self.note_fault(stream, error.strerror or str(error))
                continue
            for frame in frames:
                known = frame.time
                time = known if known is not None else clock.get(stream.index, 0.0)
                if stream is self.video:
                    length = step
                elif SAMPLE_RATES[0] <= frame.sample_rate <= SAMPLE_RATES[1]:
                    length = frame.samples / frame.sample_rate
                else:
                    self.note_fault(stream, f"a rate of {frame.sample_rate} Hz")
                    continue
                clock[stream.index] = time + length
                self._decoded.add(stream.index)
                yield stream, frame, time

    def note_fault(self, stream: Any, reason: str) -> None:
        """Remember that something of a stream couldn't be used."""
        count, first = self._faults.get(stream.index, (0, reason))
        self._faults[stream.index] = (count + 1, first)

    def _admit(self, stream: Any | None, name: str) -> Any | None:
        excess = None if stream is None else describe_excess(stream)
        if excess is None:
            return stream
        self._left_out.append(f"its {name} has {excess}")
        return None
