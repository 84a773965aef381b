"""Files to one window of frames and waveform, on one clock (PyAV, that is FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MediaError, MerError
from mer_runtime.inputs.picks import FramePicks, Watcher
from mer_runtime.inputs.waveform import WaveformBuffer
from mer_runtime.spec import Spec

#: What ``mer-run FOLDER`` takes for a clip.
MEDIA_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".wav", ".flac", ".mp3")

#: Seconds before the window from which seeking is cheaper than decoding from the start.
SEEK_AFTER = 10.0
#: Seconds by which a container's stated duration may exceed what it really holds.
DURATION_SLACK = 0.5
#: Seconds beyond the window up to which packets are read before the first is decoded.
LOOK_AHEAD = 1.0


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


def read_window(path: str | Path, spec: Spec, watch: Watcher | None = None) -> ClipWindow:
    """Decode the centre window of a clip, both streams in one pass.

    The window is ``spec.video.window`` seconds around the middle of the clip. Frame i is the
    one on screen at ``(i + 0.5) * slot`` seconds into it; before the first frame and after the
    last, those stand in. Where the clip is shorter, the waveform is padded with zeros (paper,
    section 4, "Syncing"). Channels are averaged, as ``librosa.to_mono`` does.

    Frames that the window doesn't show, and that no other frame is predicted from, aren't decoded.

    Args:
        watch: told of each picture as soon as it is decoded, in the caller's thread; ``frames``
            holds the same.

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
        try:
            window = _read(path, spec, watch, sparing=True)
        except _OtherFramesError:
            window = _read(path, spec, watch, sparing=False)
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MerError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(path, f"not a media file, or damaged ({reason})") from error
    if window is None or (window.frames is None and window.waveform is None):
        raise MediaError(path, "holds neither video nor sound that can be decoded")
    return window


class _OtherFramesError(Exception):
    """Decoding gave other frames than the packets announced."""


def _read(path: Path, spec: Spec, watch: Watcher | None, *, sparing: bool) -> ClipWindow | None:
    with av.open(str(path)) as container:
        span = _stated_span(container)
        if span is not None:
            window = _decode(path, container, span, spec, watch, sparing=sparing)
            if window is not None:
                return window
    # No duration in the header, or less in the file than it says: ask the packets.
    with av.open(str(path)) as container:
        span = _packet_span(container)
    if span is None:
        raise MediaError(path, "holds neither video nor sound that can be decoded")
    with av.open(str(path)) as container:
        return _decode(path, container, span, spec, watch, sparing=sparing, trusted=True)


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
    path: Path,
    container: Any,
    span: tuple[float, float],
    spec: Spec,
    watch: Watcher | None,
    *,
    sparing: bool,
    trusted: bool = False,
) -> ClipWindow | None:
    """Decode the window in the middle of ``span``; None where the file ends before it does.

    Raises:
        _OtherFramesError: ``sparing`` left out a frame that it shouldn't have.
    """
    video, audio = _streams(container)
    start = (span[0] + span[1] - spec.video.window) / 2
    end = start + spec.video.window
    picks = FramePicks(start, spec.video.slot, spec.video.frames, watch)
    sound = WaveformBuffer(start, spec.audio.samples, spec.audio.sample_rate)
    seeked = video is not None and start - span[0] > SEEK_AFTER
    if seeked:
        container.seek(int((start - 1) * av.time_base))
    packets = container.demux([s for s in (video, audio) if s is not None])
    chosen: list[int] | None = None
    if sparing and video is not None:
        ahead = _read_ahead(packets, end + LOOK_AHEAD)
        chosen = _choose(ahead, video, picks)
        packets = chain(ahead, packets)
    last = span[0]
    for frame, time in _decoded(packets, video, chosen):
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
        if not trusted and last < min(span[1], end) - DURATION_SLACK:
            return None
    frames = picks.finish()
    if chosen is not None and not picks.picked(chosen):
        raise _OtherFramesError
    waveform = sound.waveform() if sound.seen else None
    if waveform is not None and not np.isfinite(waveform).all():
        raise MediaError(path, "its sound holds values that are not numbers")
    return ClipWindow(frames, waveform, span[1] - span[0])


def _read_ahead(packets: Iterator[Any], until: float) -> list[Any]:
    """Packets up to the first that is decoded at ``until`` seconds or later."""
    ahead = []
    for packet in packets:
        ahead.append(packet)
        if packet.dts is not None and float(packet.dts * packet.time_base) >= until:
            break
    return ahead


def _choose(packets: Sequence[Any], video: Any, picks: FramePicks) -> list[int] | None:
    """Time stamps of the frames that the window shows; None where packets don't tell."""
    own = [p for p in packets if p.stream is video and p.size and not p.is_discard]
    if not own or any(p.pts is None for p in own):
        return None
    base = float(video.time_base)
    return picks.choose([(p.pts * base, p.pts) for p in own])


def _decoded(
    packets: Iterable[Any], video: Any | None, chosen: Sequence[int] | None
) -> Iterator[tuple[Any, float]]:
    """Frames of all streams with their times; damaged packets are passed over.

    Args:
        chosen: time stamps of the frames that matter; of others, the decoder leaves out those
            that no frame is predicted from. None: all matter.
    """
    needed = None if chosen is None else set(chosen)
    step = 0.0
    if video is not None:
        video.thread_type = "AUTO"
        step = float(1 / (video.average_rate or 25))
    clock: dict[int, float] = {}
    for packet in packets:
        stream = packet.stream
        if needed is not None and video is not None and stream is video:
            video.codec_context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        for frame in frames:
            known = frame.time
            time = known if known is not None else clock.get(stream.index, 0.0)
            length = step if stream is video else frame.samples / frame.sample_rate
            clock[stream.index] = time + length
            yield frame, time
