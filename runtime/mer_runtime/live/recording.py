"""``--record``: a stream's pictures with their answers, and its sound, as an MP4."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import OutputError
from mer_runtime.files import check_output
from mer_runtime.inputs.waveform import open_resampler
from mer_runtime.live.mp4 import FragmentedFile, drop_oldest, next_recording
from mer_runtime.live.overlay import (
    VIDEO_SUFFIX,
    draw_answer,
    draw_live,
    draw_waveform,
    video_codec,
)
from mer_runtime.live.sources.captured import Picture, Sound
from mer_runtime.stream.event import StreamEvent

#: Hz of the recorded sound.
SAMPLE_RATE = 48_000
#: Pictures a second where there is only sound.
VOICE_RATE = 10
#: Seconds of sound that a picture without a camera shows.
SHOWN_SOUND = 3.6
#: Seconds between a chunk's time and the sound before it that count as a gap or an overlap.
SOUND_SLACK = 0.05
#: Times of pictures are kept in these parts of a second; MPEG-4 can't count finer than 65 535.
TICKS = 1000
#: Pictures and chunks that may wait to be encoded: a second or two of them.
QUEUE_LENGTH = 128
#: Seconds of sound kept until the first picture tells the recording's size.
HELD_SOUND = 10.0

Item = tuple[Picture | Sound, tuple[StreamEvent, ...]]


class Recorder:
    """Encodes in a thread of its own, into an MP4 that is whole up to its last second at any time.

    Pictures take the size of the first; later ones of another size are fitted into it. Gaps in
    the sound are silent, gaps in the picture hold the frame before. Sound without pictures gets
    its waveform for a picture.

    Args:
        video, audio: what will be recorded.
        live: True drops what the encoder has no time for and counts it, False makes the caller
            wait.
        every: begin another file after so many seconds. Files are numbered then: of out.mp4,
            out-000001.mp4 and so on, from the highest number there.
        keep: with ``every``, remove all numbered files but the last so many.

    Raises:
        OutputError: ``path`` isn't an .mp4, or can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        video: bool,
        audio: bool,
        live: bool,
        every: float | None = None,
        keep: int | None = None,
    ) -> None:
        self.dropped = 0
        self._path = check_recording(path)
        self._video, self._audio, self._live = video, audio, live
        self._every, self._keep = every, keep
        self._queue: Queue[Item | None] = Queue(QUEUE_LENGTH)
        self._error: OutputError | None = None
        self._closing = False
        self._film: _Film | None = None
        self._file = self._open()
        self._thread = Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def add(self, item: Picture | Sound, answers: Sequence[StreamEvent]) -> None:
        """Record a picture with the answers of this moment, or a chunk of sound.

        Raises:
            OutputError: the recording failed, the disk is full say.
        """
        if self._error is not None:
            raise self._error
        entry = (item, tuple(answers))
        while not self._closing:
            try:
                self._queue.put(entry, block=not self._live, timeout=0.1)
            except Full:
                if not self._live:
                    continue
                self.dropped += 1
            return

    def close(self) -> None:
        """Finish the file. Without a picture or sound there is none.

        Raises:
            OutputError: it can't be finished; what was written before stays.
        """
        self._closing = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        try:
            if self._error is not None:
                raise self._error
            if self._film is None:
                raise OutputError(self._path, "nothing came that could be recorded")
            self._finish(self._film)
        except (OSError, av.FFmpegError) as error:
            self._file.discard()
            raise _output_error(self._file, error) from error

    def _open(self) -> FragmentedFile:
        try:
            return FragmentedFile(next_recording(self._path) if self._every else self._path)
        except (OSError, av.FFmpegError) as error:
            raise OutputError(self._path, getattr(error, "strerror", None) or str(error)) from error

    def _finish(self, film: _Film) -> None:
        film.finish()
        self._file.close()
        if self._every and self._keep:
            drop_oldest(self._path, self._keep)

    def _run(self) -> None:
        try:
            self._encode()
        except (OSError, ValueError, av.FFmpegError) as error:
            self._error = _output_error(self._file, error)
            # Whoever waits for room in the queue gets it, and then the error.
            with suppress(Empty):
                while True:
                    self._queue.get_nowait()

    def _encode(self) -> None:
        held: deque[Item] = deque()
        while (entry := self._queue.get()) is not None:
            item = entry[0]
            if self._film is not None and self._is_full(self._film, item):
                self._finish(self._film)
                self._film = None
                self._file = self._open()
            if self._film is None:
                held.append(entry)
                if self._video and not isinstance(item, Picture):
                    while held[-1][0].time - held[0][0].time > HELD_SOUND:
                        held.popleft()
                    continue
                start = min(kept.time for kept, _ in held)
                self._film = _Film(self._file, item, start, audio=self._audio)
                while held:
                    self._film.add(*held.popleft())
            else:
                self._film.add(*entry)

    def _is_full(self, film: _Film, item: Picture | Sound) -> bool:
        leads = isinstance(item, Picture) or not self._video
        return self._every is not None and leads and item.time - film.start >= self._every


class _Film:
    """The streams of a recording whose size is known."""

    def __init__(self, file: FragmentedFile, first: Picture | Sound, start: float, *, audio: bool):
        self._file, self.start = file, start
        self._recent: NDArray[np.float32] = np.zeros(round(SHOWN_SOUND * SAMPLE_RATE), np.float32)
        self._last = -1
        self._voice_only = isinstance(first, Sound)
        picture = self._draw_voice() if isinstance(first, Sound) else draw_live(first.image(), ())
        height, width = (side - side % 2 for side in picture.shape[:2])
        self._size = (height, width)
        self._stream: Any = file.container.add_stream(video_codec(), rate=30)
        panel = draw_answer(None, height)
        self._stream.width, self._stream.height = width + panel.shape[1], height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        # Fragments can't say that pictures out of order begin late.
        self._stream.codec_context.max_b_frames = 0
        # A device has other things to do.
        self._stream.options = {"preset": "superfast", "crf": "25"}
        self._track = _SoundTrack(file, start) if audio else None

    def add(self, item: Picture | Sound, answers: tuple[StreamEvent, ...]) -> None:
        if isinstance(item, Picture):
            self._show(draw_live(item.image(), answers, self._size), item.time, answers)
        elif self._track is not None:
            waveform = self._track.add(item)
            if self._voice_only:
                self._recent = np.concatenate([self._recent, waveform])[-len(self._recent) :]
                if self._tick(item.time) >= self._last + TICKS / VOICE_RATE:
                    self._show(self._draw_voice(), item.time, answers)

    def finish(self) -> None:
        self._file.mux(self._stream.encode(None))
        if self._track is not None:
            self._track.finish()

    def _draw_voice(self) -> NDArray[np.uint8]:
        return draw_waveform(self._recent)

    def _tick(self, time: float) -> int:
        return round((time - self.start) * TICKS)

    def _show(
        self, picture: NDArray[np.uint8], time: float, answers: tuple[StreamEvent, ...]
    ) -> None:
        tick = self._tick(time)
        if tick <= self._last:  # a clock that was set back
            return
        self._last = tick
        panel = draw_answer(answers[0] if answers else None, self._size[0])
        frame = av.VideoFrame.from_ndarray(np.hstack([picture, panel]), format="rgb24")
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        self._file.mux(self._stream.encode(frame))


class _SoundTrack:
    """Chunks of any rate, with gaps and overlaps, as one track without."""

    def __init__(self, file: FragmentedFile, start: float) -> None:
        self._file = file
        self._stream = file.container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        self._resampler: Any = None
        self._rate = 0
        self._written = 0  # samples
        self._end = start  # where the chunks so far end on the session's clock

    def add(self, sound: Sound) -> NDArray[np.float32]:
        """Write a chunk; what it became at ``SAMPLE_RATE``, float32."""
        samples = np.clip(np.nan_to_num(sound.samples, posinf=0.0, neginf=0.0), -1, 1)
        gap = sound.time - self._end
        if gap > SOUND_SLACK:
            self._write_silence(gap)
        elif gap < -SOUND_SLACK:
            samples = samples[round(-gap * sound.rate) :]
        if not len(samples):
            return np.zeros(0, np.float32)
        self._end += len(samples) / sound.rate
        if sound.rate != self._rate:
            self._resampler = open_resampler("fltp", SAMPLE_RATE)
            self._rate = sound.rate
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None], np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = sound.rate
        pieces = [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]
        waveform = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
        self._write(waveform)
        return waveform

    def finish(self) -> None:
        self._file.mux(self._stream.encode(None))

    def _write_silence(self, seconds: float) -> None:
        self._end += seconds
        left = round(seconds * SAMPLE_RATE)
        while left > 0:
            self._write(np.zeros(min(left, SAMPLE_RATE), np.float32))
            left -= SAMPLE_RATE

    def _write(self, waveform: NDArray[np.float32]) -> None:
        if not len(waveform):
            return
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._written
        frame.time_base = Fraction(1, SAMPLE_RATE)
        self._written += len(waveform)
        self._file.mux(self._stream.encode(frame))


def check_recording(path: str | Path, *sources: str) -> Path:
    """The path of a recording.

    Raises:
        OutputError: it doesn't end in .mp4, can't be written, or is one of ``sources``.
    """
    path = Path(path)
    if path.suffix.lower() != VIDEO_SUFFIX:
        raise OutputError(path, f"a recording is an {VIDEO_SUFFIX}")
    check_output(path, *sources)
    return path


def _output_error(file: FragmentedFile, error: Exception) -> OutputError:
    if isinstance(error, OutputError):
        return error
    reason = getattr(error, "strerror", None) or str(error)
    kept = "; what was recorded until then is in it" if file.named else ""
    return OutputError(file.path, f"{reason}{kept}")
