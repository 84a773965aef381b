"""How a stream's frames are looked at and its windows listened to: when asked, or ahead of that."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock, local

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.clip import describe_voice
from mer_runtime.inputs.face import FaceDetector
from mer_runtime.inputs.picture import check_frame
from mer_runtime.inputs.tracking import Face, see
from mer_runtime.inputs.window_faces import EVERY, follow_between
from mer_runtime.spec import AudioSpec
from mer_runtime.stream.audio_ring import NativeWindow
from mer_runtime.stream.frame_slots import PickedFrame
from mer_runtime.stream.intake import Task
from mer_runtime.stream.resampling import WindowResampler

Picture = NDArray[np.uint8]
Seen = tuple[Face, ...]


class Senses:
    """Looks and listens at once, in the caller's thread.

    Args:
        detector: None where no frame will come.
    """

    def __init__(self, spec: AudioSpec, detector: FaceDetector | None) -> None:
        self._spec = spec
        self._detector = detector
        self._resampler = WindowResampler(spec)

    def show(self, picked: PickedFrame) -> Picture:
        """The picture of a frame.

        Raises:
            SpecError: it is no (H, W, 3) of uint8.
        """
        return _draw(picked)

    def find(self, picked: PickedFrame, image: Picture) -> Seen:
        """The faces of a frame, whose picture this is."""
        assert self._detector is not None
        return see(image, self._detector)

    def listen(self, sound: NativeWindow) -> NDArray[np.float32] | None:
        """MFCCs of a window's sound; None where no voice is heard."""
        return describe_voice(self._resampler.waveform(sound), self._spec)


@dataclass
class _Look:
    """A frame that is looked at.

    Attributes:
        place: of all frames that are used.
        seen: None as long as nobody was looked for in it.
    """

    place: int
    image: Future[Picture]
    seen: Future[Seen] | None = None


class SensesAhead(Senses):
    """Looks and listens in threads, for tasks that are answered later.

    Faces are looked for in every third frame, and followed in between where that is safe, as in
    clip mode (``window_faces.follow_faces``).

    Args:
        open_detector: opens a detector for one thread.
    """

    def __init__(
        self, spec: AudioSpec, open_detector: Callable[[], FaceDetector], threads: int
    ) -> None:
        super().__init__(spec, None)
        self._open_detector = open_detector
        self._own = local()
        self._drawing = Lock()  # a stream has one converter
        self._pool = ThreadPoolExecutor(threads, "mer-senses")
        self._epoch = -1
        self._looks: deque[tuple[int, _Look]] = deque()  # the newest frames, by number
        self._count = 0
        self._heard: dict[int, Future[NDArray[np.float32] | None]] = {}

    def prepare(self, task: Task) -> None:
        """Begin with what a task will ask for."""
        if task.epoch != self._epoch:
            self._epoch, self._count = task.epoch, 0
            self._looks.clear()
        for picked in task.frames:
            if not self._looks or self._looks[-1][0] != picked.frame:
                self._begin(picked)
        if task.window is not None and task.window.sound is not None:
            sound = task.window.sound
            self._heard[id(sound)] = self._pool.submit(super().listen, sound)

    def show(self, picked: PickedFrame) -> Picture:
        return self._look_of(picked).image.result()

    def find(self, picked: PickedFrame, image: Picture) -> Seen:
        look = self._look_of(picked)
        if look.seen is None:
            self._follow(look.place - look.place % EVERY)
        assert look.seen is not None
        return look.seen.result()

    def listen(self, sound: NativeWindow) -> NDArray[np.float32] | None:
        return self._heard.pop(id(sound)).result()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, picked: PickedFrame) -> None:
        look = _Look(self._count, self._pool.submit(self._draw, picked))
        if self._count % EVERY == 0:
            look.seen = self._pool.submit(self._detect, look)
        self._looks.append((picked.frame, look))
        self._count += 1

    def _look_of(self, picked: PickedFrame) -> _Look:
        return next(look for number, look in self._looks if number == picked.frame)

    def _follow(self, start: int) -> None:
        """See to the frames between the one at ``start`` and the next that is looked at."""
        group = [look for _, look in self._looks if start <= look.place <= start + EVERY]
        followed = self._find_followed(group)
        for i, look in enumerate(group):
            if look.seen is None:
                look.seen = Future()
                if followed is None:
                    look.seen = self._pool.submit(self._detect, look)
                else:
                    look.seen.set_result(followed[i])

    def _find_followed(self, group: Sequence[_Look]) -> dict[int, Seen] | None:
        first, last = group[0].seen, group[-1].seen
        if len(group) <= EVERY or first is None or last is None:
            return None
        images = [look.image.result() for look in group]
        if len({image.shape for image in images}) > 1:
            return None
        seen = {0: first.result(), EVERY: last.result()}
        return follow_between(images, 0, EVERY, range(1, EVERY), seen)

    def _draw(self, picked: PickedFrame) -> Picture:
        with self._drawing:
            return _draw(picked)

    def _detect(self, look: _Look) -> Seen:
        if not hasattr(self._own, "detector"):
            self._own.detector = self._open_detector()
        return see(look.image.result(), self._own.detector)

    def forget(self, picked: PickedFrame) -> None:
        """Let go of frames that nothing needs after this one was answered."""
        done = self._look_of(picked).place
        while self._looks and self._looks[0][1].place < done - done % EVERY:
            self._looks.popleft()


def _draw(picked: PickedFrame) -> Picture:
    image = picked.image() if callable(picked.image) else picked.image
    check_frame(image)
    return image
