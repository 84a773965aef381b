"""The frames that a stream's windows are made of: each looked at once, kept by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mer_runtime.inputs.crops import crop_face, find_nearest
from mer_runtime.inputs.motion import moves_on, sketch
from mer_runtime.inputs.tracking import Face, FaceTracker
from mer_runtime.inputs.window_faces import still_shows
from mer_runtime.spec import VideoSpec
from mer_runtime.stream.frame_slots import PickedFrame
from mer_runtime.stream.senses import Senses
from mer_runtime.stream.statistics import StreamStatistics
from mer_runtime.stream.view import Picture, UsedFrame


class UsedFrames:
    """The frames of the windows to come.

    Args:
        senses: look at frames.
    """

    def __init__(self, senses: Senses, spec: VideoSpec, statistics: StreamStatistics) -> None:
        self._senses = senses
        self._spec = spec
        self._statistics = statistics
        self._tracker = FaceTracker(spec.frames)
        self._used: dict[int, UsedFrame] = {}
        self._first: int | None = None  # the first slot with a frame
        self._before: UsedFrame | None = None  # stands in for the slots before that
        self._last: tuple[int, UsedFrame] | None = None
        self._picture: Picture | None = None  # the last one, for telling repeated ones

    def look(self, picked: PickedFrame) -> None:
        """Detect the faces of a frame; one that several slots use is looked at once."""
        if self._last is not None and self._last[0] == picked.frame:
            used = self._last[1]
        else:
            used = self._detect(picked)
        self._last = (picked.frame, used)
        if picked.slot is None:
            self._before = used
        else:
            self._used[picked.slot] = used
            self._first = picked.slot if self._first is None else self._first

    def list_window(self, end: int) -> tuple[list[UsedFrame], list[bool]]:
        """A frame for each slot of the window before slot ``end``, and whether it is its own.

        The others (a camera that vanished, frames that were dropped) take the nearest slot's.
        Both are empty where no slot has a frame.
        """
        slots = range(end - self._spec.frames, end)
        held = [self._used.get(k) or (self._before if self._is_early(k) else None) for k in slots]
        real = [frame is not None for frame in held]
        nearest = find_nearest(real)
        if nearest is None:
            return [], []
        return [frame for i in nearest if (frame := held[i]) is not None], real

    def list_faces(
        self, frames: Sequence[UsedFrame], real: Sequence[bool]
    ) -> tuple[list[Mapping[int, Face]], int]:
        """The faces of each of a window's slots, and how many slots show nothing new.

        One that has no picture, or a stale one, has no faces; none has where the picture is frozen.

        Args:
            frames, real: as ``list_window`` gives them.
        """
        own = [frame for frame, is_real in zip(frames, real, strict=True) if is_real]
        enough = min(2, self._spec.frames)  # one picture doesn't tell
        if len(own) < enough or not moves_on([frame.sketch for frame in own]):
            return [], len(frames)
        seen: list[Mapping[int, Face]] = []
        stale = 0
        last, repeated = None, 0
        for frame, is_real in zip(frames, real, strict=True):
            # The first one also stands in for what was before it, however long.
            repeated = repeated + 1 if frame is last and frame is not self._before else 0
            counts = is_real and still_shows(repeated, len(frames))
            seen.append(frame.found if counts else {})
            stale += not counts
            last = frame
        return seen, stale

    def forget(self, first: int) -> None:
        """Drop what no later window holds: the slots before ``first``."""
        for slot in [slot for slot in self._used if slot < first]:
            del self._used[slot]
        if self._first is not None and self._first <= first:
            self._before = None

    def _detect(self, picked: PickedFrame) -> UsedFrame:
        image = self._senses.show(picked)
        before = self._picture
        if self._last is not None and before is not None and np.array_equal(image, before):
            return self._last[1]
        self._picture = image
        size = (image.shape[0], image.shape[1])
        with self._statistics.timed("face"):
            found = self._tracker.update(self._senses.find(picked, image), size, picked.slot or 0)
        # The picture is large, and serves no more where somebody was seen.
        crops = {face.box: crop_face(image, face.box, self._spec) for face in found.values()}
        return UsedFrame(None if found else image, size, sketch(image), found, crops=crops)

    def _is_early(self, slot: int) -> bool:
        return self._first is None or slot < self._first
