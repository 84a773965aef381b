"""Files to one window of frames and waveform, on one clock (PyAV, that is FFmpeg)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import EINVAL
from itertools import chain
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MediaError, MerError, lacks_memory
from mer_runtime.inputs.container import pixel_aspect
from mer_runtime.inputs.media_file import Media, MediaFile
from mer_runtime.inputs.notes import describe_jumps, describe_picture, describe_rest, describe_sound
from mer_runtime.inputs.picks import STALE, FramePicks, Watcher
from mer_runtime.inputs.picture import FrameDrawer
from mer_runtime.inputs.streams import MediaStreams
from mer_runtime.inputs.timeline import Timeline, packet_span, stated_span
from mer_runtime.inputs.voice_activity import hears_voice
from mer_runtime.inputs.waveform import SILENCE, WaveformBuffer
from mer_runtime.spec import Spec

#: Seconds before the window from which seeking is cheaper than decoding from the start.
SEEK_AFTER = 10.0
#: Seconds by which a container's stated duration may exceed what it really holds.
DURATION_SLACK = 0.5
#: Seconds beyond the window up to which packets are read before the first is decoded.
LOOK_AHEAD = 1.0
#: Bytes and number of packets that may be held for that; beyond, every frame is decoded.
HELD_BYTES, HELD_PACKETS = 64_000_000, 50_000
#: What covers all of a long clip.
TIMELINES = "mer-run --timeline, or Recognizer.timeline,"

#: All of a clip, as a part of it.
WHOLE = (0.0, math.inf)

#: Whose word is taken for when a clip begins and ends: its header's; its packets'; or its packets'
#: with the holes closed in which no stream has anything, as where a clock jumped by hours.
Basis = Literal["header", "packets", "closed"]


@dataclass(frozen=True)
class ClipWindow:
    """What the model may look at and listen to in one clip.

    Attributes:
        frames: (spec.video.frames, H, W, 3) uint8 RGB, upright and with square pixels, at most
            1920 x 1080 of them; None without a picture in the window.
        waveform: (spec.audio.samples,) float32, mono, zero where the clip has no sound; in
            [-1, 1] unless the file holds more. None without an audio stream.
        duration: seconds from the first to the last moment of either stream.
        shown: (spec.video.frames,) bool, where a frame was on screen; elsewhere the nearest such
            frame stands in. None without ``frames``.
        audio_track: which audio track was listened to, counted from 1; None without.
        notes: what was wrong with the clip and is missing or mended here, and whether the rest of
            a long one wasn't looked at; a sentence each.
        still: whether it is one picture, which stands in every slot.
        start, end: seconds from the first moment: the part of the clip that lies in the window.
    """

    frames: NDArray[np.uint8] | None
    waveform: NDArray[np.float32] | None
    duration: float
    shown: NDArray[np.bool_] | None = None
    audio_track: int | None = None
    notes: tuple[str, ...] = ()
    still: bool = False
    start: float = 0.0
    end: float = 0.0


def read_window(
    media: Media | MediaFile,
    spec: Spec,
    watch: Watcher | None = None,
    *,
    audio_track: int | None = None,
    part: tuple[float, float] = WHOLE,
) -> ClipWindow:
    """Decode the centre window of a clip, both streams in one pass.

    The window is ``spec.video.window`` seconds around the middle of the clip. Frame i is the
    one on screen at ``(i + 0.5) * slot`` seconds into it. Before the first frame that one stands
    in, and a frame stays on screen for half a window at most (see ``FramePicks``). Where the clip
    is shorter, the waveform is padded with zeros (paper, section 4, "Syncing"). Channels are
    averaged, as ``librosa.to_mono`` does, unless they cancel out.

    Frames that the window doesn't show, and that no other frame is predicted from, aren't decoded.
    A stream that is damaged, missing in the window or beyond the bounds of ``inputs.container``
    is left out, and ``notes`` say so, as long as the other one is there.

    Args:
        media: a path, a file's content, or a file object (see ``MediaFile``).
        watch: told of each picture as soon as it is decoded, in the caller's thread; ``frames``
            holds the same.
        audio_track: the audio track to listen to, counted from 1; by default the first one
            with a voice in the window, else the first that isn't silent there.
        part: seconds from the clip's first moment, of whose middle the window is; what lies
            beside a shorter part is in the window too.

    Raises:
        MediaError: the file is missing, empty, not media, damaged, holds neither stream, has no
            such track, ends before ``part``, or needs more memory than there is.
    """
    file = media if isinstance(media, MediaFile) else MediaFile(media)
    reading = _Reading(file, spec, watch, audio_track, part)
    try:
        try:
            return reading.read(sparing=True)
        except _OtherFramesError:
            return reading.read(sparing=False)
    except Exception as error:
        if isinstance(error, MerError):
            raise
        if lacks_memory(error):
            raise MediaError(file.name, "there isn't memory enough to decode it") from error
        if not isinstance(error, av.FFmpegError | OSError | ValueError):
            raise
        raise MediaError(file.name, f"not a media file, or damaged ({_reason(error)})") from error


class _OtherFramesError(Exception):
    """Decoding gave other frames than the packets announced."""


class _SeekError(Exception):
    """Decoding from the middle isn't possible."""


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == EINVAL:
        return "not a kind of file that is read here"
    return getattr(error, "strerror", None) or str(error)


class _Reading:
    """One clip's window, looked for where its header says, and then by other ways."""

    def __init__(
        self,
        file: MediaFile,
        spec: Spec,
        watch: Watcher | None,
        track: int | None,
        part: tuple[float, float],
    ) -> None:
        self._file, self._spec, self._watch, self._track = file, spec, watch, track
        self._part = part

    def read(self, *, sparing: bool) -> ClipWindow:
        """The window.

        Raises:
            _OtherFramesError: ``sparing`` left out a frame that it shouldn't have.
        """
        faults: tuple[str, ...] = ()
        bases: tuple[Basis, ...] = ("header", "packets", "closed")
        for basis in bases:
            with self._file.open() as container:
                streams = MediaStreams(self._file.name, container, self._track)
                span = self._span(container, streams, basis)
                faults = streams.notes
            if span is None:
                continue
            try:
                window = self._decode(basis, span, seek=basis != "closed", sparing=sparing)
            except _SeekError:
                window = self._decode(basis, span, seek=False, sparing=sparing)
            if isinstance(window, ClipWindow):
                return window
            faults = window
        reason = f" ({'; '.join(faults)})" if faults else ""
        raise MediaError(
            self._file.name, f"holds neither video nor sound that can be decoded{reason}"
        )

    def _timeline(self, basis: Basis) -> Timeline:
        return Timeline(STALE * self._spec.video.window if basis == "closed" else math.inf)

    def _span(
        self, container: Any, streams: MediaStreams, basis: Basis
    ) -> tuple[float, float] | None:
        if basis == "header":
            return stated_span(container, streams.timing)
        packets = self._timeline(basis).follow(streams.demux())
        return packet_span(packet for packet in packets if packet.stream in streams.timing)

    def _decode(
        self, basis: Basis, span: tuple[float, float], *, seek: bool, sparing: bool
    ) -> ClipWindow | tuple[str, ...]:
        """Decode the window in the middle of ``span``; notes on why, where nothing is there.

        Raises:
            _SeekError: it has to be decoded from the beginning.
            _OtherFramesError: as for ``read``.
        """
        spec = self._spec
        begin, finish = span[0] + self._part[0], min(span[1], span[0] + self._part[1])
        if begin >= span[1]:
            raise MediaError(
                self._file.name, f"ends at {span[1] - span[0]:.1f} s, before {self._part[0]:g} s"
            )
        start = (begin + finish - spec.video.window) / 2
        end = start + spec.video.window
        with self._file.open() as container:
            streams = MediaStreams(self._file.name, container, self._track)
            timeline = self._timeline(basis)
            video = streams.video
            drawer = FrameDrawer(1.0 if video is None else pixel_aspect(video))
            picks = FramePicks(
                start, spec.video.slot, spec.video.frames, self._watch, drawer=drawer
            )
            tracks = {
                number: WaveformBuffer(start, spec.audio.samples, spec.audio.sample_rate)
                for number in streams.tracks
            }
            seeks = seek and video is not None and start - span[0] > SEEK_AFTER
            if seeks:
                _seek(container, start - 1)
            packets = timeline.follow(streams.demux())
            chosen: list[int | None] | None = None
            if sparing and video is not None:
                ahead, complete = _read_ahead(packets, end + LOOK_AHEAD)
                chosen = _choose(ahead, video, picks) if complete else None
                packets = chain(ahead, packets)
            sounds = {streams.tracks[n].index: sound for n, sound in tracks.items()}

            def is_full(stream: Any) -> bool:
                return picks.full if stream is video else sounds[stream.index].full

            last = span[0]
            needed = None if chosen is None else set(chosen)

            def needs(packet: Any) -> bool:
                return needed is None or packet.pts in needed

            for stream, frame, time in streams.decode(packets, needs, is_full):
                last = max(last, time)
                if stream is not video:
                    sounds[stream.index].add(frame, time)
                    continue
                if seeks and picks.empty and time > picks.first:
                    raise _SeekError
                picks.offer(frame, time)
            frames = picks.finish()
            faults = streams.notes
        if seeks and picks.empty:
            raise _SeekError
        if basis == "header" and last < min(span[1], end) - DURATION_SLACK:
            return faults  # the file ends before its header says
        if frames is None and not any(sound.inside for sound in tracks.values()):
            return faults
        if chosen is not None and not picks.picked(chosen):
            raise _OtherFramesError
        track = _choose_track(tracks, spec.audio.sample_rate)
        notes = [*faults, *describe_jumps(timeline)]
        duration = span[1] - span[0]
        opens, closes = max(start - span[0], 0.0), min(end - span[0], duration)
        window = f"from {start - span[0]:.1f} to {end - span[0]:.1f} s, the window"
        if video is not None:
            notes += describe_picture(picks, window)
        if track is not None:
            notes += describe_sound(tracks, track, window)
        notes += describe_rest(opens, closes, duration, TIMELINES)
        return ClipWindow(
            frames,
            None if track is None else tracks[track].waveform(),
            duration,
            None if frames is None else picks.shown,
            track,
            tuple(notes),
            start=opens,
            end=closes,
        )


def _seek(container: Any, seconds: float) -> None:
    try:
        container.seek(int(seconds * av.time_base))
    except (av.FFmpegError, OverflowError) as error:
        raise _SeekError from error


def _read_ahead(packets: Iterator[Any], until: float) -> tuple[list[Any], bool]:
    """Packets up to the first that is decoded at ``until`` seconds or later, and whether those
    are all: no more are held than memory allows."""
    ahead: list[Any] = []
    held = 0
    for packet in packets:
        ahead.append(packet)
        held += packet.size
        if packet.dts is not None and float(packet.dts * packet.time_base) >= until:
            break
        if held > HELD_BYTES or len(ahead) > HELD_PACKETS:
            return ahead, False
    return ahead, True


def _choose(packets: Sequence[Any], video: Any, picks: FramePicks) -> list[int | None] | None:
    """Time stamps of the frames that the window shows; None where packets don't tell."""
    own = [p for p in packets if p.stream is video and p.size and not p.is_discard]
    if not own or any(p.pts is None for p in own):
        return None
    base = float(video.time_base)
    return picks.choose([(p.pts * base, p.pts) for p in own])


def _choose_track(tracks: Mapping[int, WaveformBuffer], rate: int) -> int | None:
    """The first track with a voice, else the first that isn't silent, else the first that gave
    anything; None without. A track's waveform has ``rate`` Hz."""
    given = [number for number, sound in tracks.items() if sound.seen]
    loud = [number for number in given if tracks[number].peak > SILENCE]
    if len(loud) > 1:
        loud = [n for n in loud if hears_voice(tracks[n].waveform(), rate)] or loud
    return next(iter(loud or given), None)
