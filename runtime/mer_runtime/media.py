"""Files to one window of frames and waveform, on one clock (PyAV, that is FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MediaError
from mer_runtime.spec import Spec
from mer_runtime.waveform import WaveformBuffer

#: What ``mer-run FOLDER`` takes for a clip.
MEDIA_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".wav", ".flac", ".mp3")

#: Seconds before the window from which seeking is cheaper than decoding from the start.
SEEK_AFTER = 10.0
#: Seconds by which a container's stated duration may exceed what it really holds.
DURATION_SLACK = 0.5
#: Seconds; a frame counts as shown at a time that rounding put this much before it.
CLOCK_SLACK = 1e-4


@dataclass(frozen=True)
class ClipWindow:
    """What the model may look at and listen to in one clip.

    Attributes:
        frames: (spec.video.frames, H, W, 3) uint8 RGB, upright; None without a video stream.
        waveform: (spec.audio.samples,) float32 in [-1, 1], mono, zero where the clip has no
            sound; None without an audio stream.
        duration: seconds from the first to the last moment of either stream.
    """

    frames: NDArray[np.uint8] | None
    waveform: NDArray[np.float32] | None
    duration: float


def read_window(path: str | Path, spec: Spec) -> ClipWindow:
    """Decode the centre window of a clip, both streams in one pass.

    The window is ``spec.video.window`` seconds around the middle of the clip. Frame i is the
    one on screen at ``(i + 0.5) * slot`` seconds into it; before the first frame and after the
    last, those stand in. Where the clip is shorter, the waveform is padded with zeros (paper,
    section 4, "Syncing"). Channels are averaged, as ``librosa.to_mono`` does.

    Raises:
        MediaError: the file is missing, empty, not media, damaged, or holds neither stream.
    """
    path = Path(path)
    if path.is_dir():
        raise MediaError(path, "is a folder, not a clip")
    if not path.exists():
        raise MediaError(path, "there is no such file")
    if path.stat().st_size == 0:
        raise MediaError(path, "the file is empty")
    try:
        with av.open(str(path)) as container:
            span = _stated_span(container)
            if span is not None:
                window = _decode(path, container, span, spec)
                if window is not None:
                    return window
        # No duration in the header, or less in the file than it says: ask the packets.
        with av.open(str(path)) as container:
            span = _packet_span(container)
        if span is None:
            raise MediaError(path, "holds neither video nor sound that can be decoded")
        with av.open(str(path)) as container:
            window = _decode(path, container, span, spec, trusted=True)
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(path, f"not a media file, or damaged ({reason})") from error
    if window is None or (window.frames is None and window.waveform is None):
        raise MediaError(path, "holds neither video nor sound that can be decoded")
    return window


def _streams(container: Any) -> tuple[Any | None, Any | None]:
    """The video stream (cover art doesn't count) and the audio stream."""
    video = next(
        (
            s
            for s in container.streams.video
            if s.codec_context is not None
            and not s.disposition & av.stream.Disposition.attached_pic
        ),
        None,
    )
    audio = next((s for s in container.streams.audio if s.codec_context is not None), None)
    return video, audio


def _stated_span(container: Any) -> tuple[float, float] | None:
    """First and last second of the clip as its header has them, or None."""
    starts, ends = [], []
    for stream in _streams(container):
        if stream is None:
            continue
        start = float((stream.start_time or 0) * stream.time_base)
        if stream.duration:
            length = float(stream.duration * stream.time_base)
        elif container.duration:
            length = container.duration / av.time_base - start
        else:
            return None
        starts.append(start)
        ends.append(start + length)
    return (min(starts), max(ends)) if starts and max(ends) > min(starts) else None


def _packet_span(container: Any) -> tuple[float, float] | None:
    """The same from the packets' own times, which takes reading the whole file."""
    streams = [s for s in _streams(container) if s is not None]
    starts, ends = [], []
    for packet in container.demux(streams):
        if packet.pts is not None and packet.size:
            start = float(packet.pts * packet.time_base)
            starts.append(start)
            ends.append(start + float((packet.duration or 0) * packet.time_base))
    return (min(starts), max(ends)) if starts else None


def _decode(
    path: Path, container: Any, span: tuple[float, float], spec: Spec, *, trusted: bool = False
) -> ClipWindow | None:
    """Decode the window in the middle of ``span``; None where the file ends before it does."""
    video, audio = _streams(container)
    start = (span[0] + span[1] - spec.video.window) / 2
    picks = _FramePicks(start, spec.video.slot, spec.video.frames)
    sound = WaveformBuffer(start, spec.audio.samples, spec.audio.sample_rate)
    seeked = video is not None and start - span[0] > SEEK_AFTER
    if seeked:
        container.seek(int((start - 1) * av.time_base))
    last = span[0]
    for frame, time in _decoded(container, [s for s in (video, audio) if s is not None]):
        last = max(last, time)
        if isinstance(frame, av.VideoFrame):
            if seeked and picks.empty and time > picks.first:
                raise MediaError(path, "its video can't be decoded from the middle")
            picks.offer(frame, time)
        else:
            sound.add(frame, time)
        if (video is None or picks.full) and (audio is None or sound.full):
            break
    else:
        end = min(span[1], start + spec.video.window)
        if not trusted and last < end - DURATION_SLACK:
            return None
    waveform = sound.waveform() if sound.seen else None
    if waveform is not None and not np.isfinite(waveform).all():
        raise MediaError(path, "its sound holds values that are not numbers")
    return ClipWindow(picks.pictures(), waveform, span[1] - span[0])


def _decoded(container: Any, streams: list[Any]) -> Iterator[tuple[Any, float]]:
    """Frames of all streams with their times; damaged packets are passed over."""
    for stream in streams:
        stream.thread_type = "AUTO"
    clock: dict[int, float] = {}
    for packet in container.demux(streams):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        for frame in frames:
            index = packet.stream.index
            time = frame.time if frame.time is not None else clock.get(index, 0.0)
            if isinstance(frame, av.VideoFrame):
                rate = packet.stream.average_rate or 25
                clock[index] = time + float(1 / rate)
            else:
                clock[index] = time + frame.samples / frame.sample_rate
            yield frame, time


class _FramePicks:
    """Keeps, of frames in order of time, those on screen at the middle of each slot."""

    def __init__(self, start: float, slot: float, count: int) -> None:
        self._times = [start + (i + 0.5) * slot for i in range(count)]
        self._picked: list[Any] = []
        self._current: Any = None

    @property
    def first(self) -> float:
        return self._times[0]

    @property
    def empty(self) -> bool:
        return self._current is None

    @property
    def full(self) -> bool:
        return len(self._picked) == len(self._times)

    def offer(self, frame: Any, time: float) -> None:
        if self._current is not None:
            while not self.full and self._times[len(self._picked)] < time - CLOCK_SLACK:
                self._picked.append(self._current)
        self._current = frame

    def pictures(self) -> NDArray[np.uint8] | None:
        """(count, H, W, 3) uint8 RGB, upright; None if there was no frame."""
        if self._current is None:
            return None
        picked = self._picked + [self._current] * (len(self._times) - len(self._picked))
        width, height = picked[0].width, picked[0].height
        pictures: list[NDArray[np.uint8]] = []
        for i, frame in enumerate(picked):
            if i and frame is picked[i - 1]:
                pictures.append(pictures[-1])
                continue
            # A stream may change its size midway; all frames take the first one's.
            rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
            turns = round(getattr(frame, "rotation", 0) / 90)
            pictures.append(np.rot90(rgb, turns))
        return np.ascontiguousarray(np.stack(pictures))
