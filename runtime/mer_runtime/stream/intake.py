"""What has arrived, and what there is to do about it: all of a stream that needs a lock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_runtime.spec import Spec
from mer_runtime.stream.audio_ring import LOOKAHEAD, AudioRing, NativeWindow
from mer_runtime.stream.frame_slots import FrameSlots, Image, PickedFrame
from mer_runtime.stream.sound_clock import SoundClock
from mer_runtime.stream.statistics import StreamStatistics

#: Seconds by which one kind may be behind the other and is still waited for, live: muxers
#: interleave as coarsely. One that is further behind is taken for lost.
PATIENCE = 1.0
#: Seconds by which a frame or chunk may come after a later one; more is a clock set back.
REORDER = 1.0
#: Used frames that wait for inference, at least; more are dropped, the oldest first.
WAITING = 8
#: Seconds; rounding of sums of slots.
EPSILON = 1e-6


@dataclass(frozen=True)
class WindowTask:
    """A window to answer.

    Attributes:
        slot: the slot after its last.
        time: seconds on the stream's clock at which it ends.
        filled: the share of it that lies after the stream's beginning.
        sound: None where it holds none.
        arrival: when its last sample or frame came, by ``time.monotonic``; -inf if none did.
    """

    slot: int
    time: float
    filled: float
    sound: NativeWindow | None
    arrival: float


@dataclass(frozen=True)
class Task:
    """The engine's next work: frames in order of time, then perhaps a window.

    Attributes:
        epoch: changes where the clock jumped: nothing from before counts any more.
    """

    epoch: int
    frames: tuple[PickedFrame, ...]
    window: WindowTask | None


class Intake:
    """Sorts frames and sound into slots and samples; cheap enough to do while capturing.

    Not safe for several threads at once: its owner holds a lock.

    Args:
        hop: slots from window to window.
        live: drop what is too old to be of use, and correct the sound's clock.
        origin: the clock's time of slot 0; by default that of what comes first.
    """

    def __init__(
        self,
        spec: Spec,
        hop: int,
        statistics: StreamStatistics,
        *,
        live: bool,
        video: bool,
        audio: bool,
        origin: float | None,
    ) -> None:
        self._spec = spec
        self._hop = hop
        self._statistics = statistics
        self._live = live
        self._video = video
        self._audio = audio
        self._window = spec.video.window
        self._patience = PATIENCE if live else self._window
        self._waiting = max(WAITING, 2 * hop)
        self._clock = SoundClock(statistics)
        self._epoch = 0
        self._started = False
        self._begin(origin if origin is not None else 0.0)
        self._origin_given = origin is not None

    def _begin(self, origin: float) -> None:
        spec, statistics = self._spec.video, self._statistics
        self._origin = origin
        # What a window needs while the other kind is behind, and a second for reordering.
        kept = 2 * self._window + self._hop * spec.slot + 1.0
        self._ring = AudioRing(origin, kept, statistics)
        self._slots = FrameSlots(origin, spec.slot, self._window / 2, statistics)
        self._pending: deque[PickedFrame] = deque()
        self._next = self._hop  # the slot after the next window
        self._answered = 0  # the slot after the last window
        self._frame_times = _Arrivals()
        self._sound_times = _Arrivals()
        self._last_frame: float | None = None
        self._frame_interval = 0.0
        self._last_chunk: float | None = None

    @property
    def ring(self) -> AudioRing:
        """The sound that is held."""
        return self._ring

    def add_frame(self, image: Image, time: float, arrival: float) -> None:
        """Take a frame that came at ``arrival`` seconds of the monotonic clock."""
        self._statistics.frames += 1
        if self._live:
            self._clock.see_frame(time, arrival)
        self._admit(time, self._last_frame)
        if self._last_frame is not None and time > self._last_frame:
            self._frame_interval = time - self._last_frame
        self._last_frame = max(time, time if self._last_frame is None else self._last_frame)
        self._frame_times.add(time, arrival)
        self._queue(self._slots.offer(image, time))

    def add_sound(
        self, samples: NDArray[np.float32], rate: int, time: float, arrival: float
    ) -> None:
        """Take (n,) or (mixes, n) finite samples, not longer than a window."""
        length = samples.shape[-1] / rate
        if self._live:
            time += self._clock.see_sound(time + length, arrival)
        self._admit(time, self._last_chunk)
        self._last_chunk = max(time, time if self._last_chunk is None else self._last_chunk)
        self._ring.add(samples, rate, time)
        self._sound_times.add(time + length, arrival)

    def take(self, *, flush: bool = False) -> Task | None:
        """The next work, or None where nothing is complete.

        Args:
            flush: the stream has ended: nothing more is waited for.
        """
        slot = self._complete_window()
        if slot is None and flush:
            slot = self._flushed_window()
        if slot is not None:
            self._queue(self._slots.decide_until(slot))
            frames = []
            while self._pending and (self._pending[0].slot is None or self._pending[0].slot < slot):
                frames.append(self._pending.popleft())
            self._next = max(self._next, slot + self._hop)
            self._answered = slot
            return Task(self._epoch, tuple(frames), self._cut(slot))
        if self._pending:
            return Task(self._epoch, (self._pending.popleft(),), None)
        return None

    def _admit(self, time: float, last: float | None) -> None:
        """Begin anew where the clock jumps: ``last`` is the newest time of the same kind."""
        if not self._started:
            self._started = True
            if not self._origin_given or time > self._origin + self._window:
                self._begin(time)
            return
        back = last is not None and time < last - REORDER
        if back or time > self._reached() + self._window:
            self._statistics.resets += 1
            self._epoch += 1
            self._begin(time)

    def _queue(self, frames: list[PickedFrame]) -> None:
        self._statistics.used += len(frames)
        self._pending.extend(frames)
        while self._live and len(self._pending) > self._waiting:
            self._pending.popleft()
            self._statistics.dropped += 1

    def _reached(self) -> float:
        """The newest time that anything reached."""
        head = self._ring.head
        known = [t for t in (self._last_frame, head) if t is not None]
        return max(known, default=self._origin)

    def _end_of(self, slot: int) -> float:
        return self._origin + slot * self._spec.video.slot

    def _complete_window(self) -> int | None:
        """The slot after the next window that is complete; live, after the newest one.

        Live, older windows would only make the answer late.
        """
        reached = self._reached()
        if not self._is_complete(self._next, reached):
            return None
        slot = self._next
        while self._live and self._is_complete(slot + self._hop, reached):
            slot += self._hop
            self._statistics.skipped += 1
        return slot

    def _is_complete(self, slot: int, reached: float) -> bool:
        end = self._end_of(slot) - EPSILON
        if reached < end:
            return False
        if self._video and self._slots.next < slot:
            seen = self._origin if self._last_frame is None else self._last_frame
            if reached - seen <= self._patience:
                return False
        if self._audio:
            head = self._ring.head
            heard = self._origin if head is None else head
            resampled = self._ring.rate != self._spec.audio.sample_rate
            needed = end + LOOKAHEAD if resampled else end
            if heard < needed and reached - heard <= self._patience:
                return False
        return True

    def _flushed_window(self) -> int | None:
        """As ``_complete_window`` at the end: the last window ends with the nearest slot."""
        if not self._started:
            return None
        end = self._reached()
        if self._last_frame is not None:
            shown = min(self._frame_interval, self._spec.video.slot)
            end = max(end, self._last_frame + shown)
        slots = round((end - self._origin) / self._spec.video.slot)
        if self._next <= slots:
            return self._next
        slots = max(slots, 1)
        return slots if slots > self._answered else None

    def _cut(self, slot: int) -> WindowTask:
        end = self._end_of(slot)
        start = end - self._window
        sound = self._ring.window(start, self._window)
        arrival = max(self._frame_times.before(end), self._sound_times.until(end))
        filled = min(slot / self._spec.video.frames, 1.0)
        return WindowTask(slot, end, filled, sound, arrival)


class _Arrivals:
    """When what was stamped with a time arrived; the newest that matter."""

    def __init__(self) -> None:
        self._newest: deque[tuple[float, float]] = deque(maxlen=1024)
        self._passed = float("-inf")

    def add(self, time: float, arrival: float) -> None:
        self._newest.append((time, arrival))

    def before(self, end: float) -> float:
        """When the last of those before ``end`` arrived; -inf where there is none."""
        while self._newest and self._newest[0][0] < end - EPSILON:
            self._passed = self._newest.popleft()[1]
        return self._passed

    def until(self, end: float) -> float:
        """When the first that reaches to ``end`` arrived, else the last before it."""
        passed = self.before(end)
        return self._newest[0][1] if self._newest else passed
