"""The face of a window: one person, looked for in some frames and followed in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.crops import crop_face, find_nearest
from mer_runtime.inputs.face import Box, FaceDetector
from mer_runtime.inputs.motion import moves_on, sketch
from mer_runtime.inputs.tracking import (
    Face,
    FaceTracker,
    choose_person,
    compare_looks,
    describe_look,
    list_people,
    match,
    measure_move,
    see,
    shows,
)
from mer_runtime.spec import VideoSpec

#: Used frames from one detection to the next, on a device.
EVERY = 3
#: Between two detections a face is followed that both times had at least this score,
SURE = 0.75
#: moved by less than this many sides and grew by less than this factor meanwhile,
NEAR, SAME_SIZE = 0.5, 1.3
#: and in each frame between looks as alike to the nearer detection.
FOLLOWED = 0.85

Frames = NDArray[np.uint8]
#: The faces in the frames at these places.
Look = Callable[[Sequence[int]], list[tuple[Face, ...]]]


@dataclass(frozen=True)
class FaceCrops:
    """One person's face in each frame of a window.

    Attributes:
        crops: (frames, S, S, 3) uint8 in the spec's colour order.
        boxes: the box of each crop.
        found: (frames,) bool, where the face was detected or followed. Elsewhere the nearest
            frame's box was taken, or its very crop, where others are seen or the box shows
            something else.
        people: how many persons' faces were seen in at least two frames, at least 1.
    """

    crops: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    found: NDArray[np.bool_]
    people: int

    def repeat(self, frames: int) -> FaceCrops:
        """One frame's crop in so many frames, as of a still picture."""
        return FaceCrops(
            np.repeat(self.crops, frames, axis=0),
            self.boxes * frames,
            np.repeat(self.found, frames),
            self.people,
        )


def crop_faces(
    frames: Frames, spec: VideoSpec, detector: FaceDetector, *, every: int = 1
) -> FaceCrops | None:
    """Find the person that a window is about (``choose_person``), and crop the face.

    Args:
        frames: (n, H, W, 3) uint8 RGB.
        every: look for faces in every so many frames, and follow them in between
            (``follow_faces``).

    Returns:
        Crops, or None where the modality is missing: no frame shows a face, or the picture is
        frozen.
    """
    return crop_person(frames, find_faces(frames, detector, every), spec)


def find_faces(frames: Frames, detector: FaceDetector, every: int) -> list[tuple[Face, ...]]:
    """As ``follow_faces``, with a detector."""
    return follow_faces(frames, lambda at: [see(frames[i], detector) for i in at], every)


def follow_faces(frames: Frames, look: Look, every: int) -> list[tuple[Face, ...]]:
    """The faces of each frame; none in one that is stale (``still_shows``).

    They are looked for in every ``every``-th frame and the last. Between two of those a face is
    where a straight line puts it, if both frames show the same faces, with a high score and
    not far from each other, and if what is there looks like them. Otherwise the frames between
    are looked at as well. Where two in turn show none, nobody is thought to be between them.

    Args:
        look: called with places of frames, in order.
    """
    last = len(frames) - 1
    fresh = [i == 0 or not np.array_equal(frames[i], frames[i - 1]) for i in range(last + 1)]
    sources = list(accumulate((i if new else 0 for i, new in enumerate(fresh)), max))
    keys = sorted({sources[i] for i in (*range(0, last + 1, every), last)})
    seen: dict[int, tuple[Face, ...]] = dict(zip(keys, look(keys), strict=True))
    doubtful: list[int] = []
    for start, end in pairwise(keys):
        between = [i for i in range(start + 1, end) if fresh[i]]
        followed = follow_between(frames, start, end, between, seen)
        if followed is None:
            doubtful += between
        else:
            seen.update(followed)
    seen.update(zip(doubtful, look(doubtful) if doubtful else [], strict=True))
    return [seen[k] if still_shows(i - k, last + 1) else () for i, k in enumerate(sources)]


def still_shows(repeated: int, frames: int) -> bool:
    """Whether a picture still counts that so many frames of a window repeat before this one.

    One stays for half a window, as a stream's does: a low frame rate, a clip that is shorter than
    the window. Then it is a frozen camera's.
    """
    return repeated <= frames // 2


def follow_between(
    frames: Frames | Sequence[Frames],
    start: int,
    end: int,
    between: Sequence[int],
    seen: dict[int, tuple[Face, ...]],
) -> dict[int, tuple[Face, ...]] | None:
    """The faces of the frames ``between`` two that were looked at; None where that is in doubt."""
    pairs = match(dict(enumerate(seen[start])), seen[end])
    if not len(pairs) == len(seen[start]) == len(seen[end]):
        return None
    followed: dict[int, tuple[Face, ...]] = {}
    ends = [(seen[start][i], face) for i, face in pairs.items()]
    for first, second in ends:
        distance, growth = measure_move(first.box, second.box)
        sure = min(first.box.score, second.box.score) >= SURE
        if not sure or distance >= NEAR or growth >= SAME_SIZE:
            return None
    for i in between:
        share = (i - start) / (end - start)
        faces = []
        for first, second in ends:
            box = _between(first.box, second.box, share)
            look = describe_look(frames[i], box)
            alike = compare_looks(look, (first if share <= 0.5 else second).look)
            if alike is None or alike < FOLLOWED:
                return None
            faces.append(Face(box, look))
        followed[i] = tuple(faces)
    return followed


def _between(first: Box, second: Box, share: float) -> Box:
    def mix(one: float, other: float) -> float:
        return (1 - share) * one + share * other

    return Box(
        mix(first.x, second.x),
        mix(first.y, second.y),
        mix(first.width, second.width),
        mix(first.height, second.height),
        min(first.score, second.score),
    )


def crop_person(
    frames: Frames, seen: Sequence[tuple[Face, ...]], spec: VideoSpec
) -> FaceCrops | None:
    """Crop the person that a window is about, from the faces of its frames, as ``crop_faces``."""
    if not moves_on([sketch(frame) for frame in frames]):
        return None
    size = frames.shape[1], frames.shape[2]
    tracker = FaceTracker(len(frames))
    found = [tracker.update(faces, size, i) for i, faces in enumerate(seen)]
    person = choose_person(found)
    nearest = find_nearest([person in faces for faces in found])
    if person is None or nearest is None:
        return None
    crops, boxes = [], []
    for i, k in enumerate(nearest):
        face = found[k][person]
        stays = i == k or (not found[i] and shows(frames[i], face))
        crops.append(crop_face(frames[i if stays else k], face.box, spec))
        boxes.append(face.box)
    there = np.array([person in faces for faces in found])
    return FaceCrops(np.stack(crops), tuple(boxes), there, max(len(list_people(found)), 1))
