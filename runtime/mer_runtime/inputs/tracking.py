"""Which face of a frame is which person of the one before, and whom a window is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.crops import crop_face
from mer_runtime.inputs.face import Box, FaceDetector
from mer_runtime.spec import VideoSpec

Faces = Literal["one", "all"]
Look = NDArray[np.float32]

#: Faces of a frame that are followed at most, the largest ones.
MOST = 5
#: A face moves by less than this many of its sides from one used frame to the next it is in.
REACH = 1.0
#: The same where it looks as it did: somebody walks past. For each slot that it was away, again.
FAR_REACH = 3.0
#: Its area changes by less than this factor meanwhile.
GROWTH = 4.0
#: Of two looks at one person, 0.24 s apart, 1 % are less alike than 0.81; of two persons', 2 % are
#: more alike than 0.65 (scripts/measure_following.py).
ALIKE = 0.65
VERY_ALIKE = 0.85
#: Pixels of a look's side.
LOOK_SIZE = 8
#: Levels (of 255) of standard deviation: less is a plain surface.
PLAIN = 2.0
#: Slots for which a face that isn't seen is taken to go on as it went.
COASTING = 3
#: A person counts who was seen in so many of a window's frames: a single detection is often none.
CONFIRMED = 2

_LOOK_CROP = VideoSpec(size=32)


@dataclass(frozen=True)
class Face:
    """A face of a frame.

    ``look`` is (192,) float32, what it looks like: see ``describe_look``. None matches any.
    """

    box: Box
    look: Look | None = field(default=None, compare=False)


def see(frame: NDArray[np.uint8], detector: FaceDetector) -> tuple[Face, ...]:
    """The ``MOST`` largest faces of an RGB frame (H, W, 3) uint8, the largest first."""
    boxes = detector.detect_all(frame)[:MOST]
    return tuple(Face(box, describe_look(frame, box)) for box in boxes)


def describe_look(frame: NDArray[np.uint8], box: Box) -> Look | None:
    """A face in 8 x 8 pixels of RGB, with mean 0 and length 1: (192,) float32.

    None of a plain surface, which looks like nothing.
    """
    crop = crop_face(frame, box, _LOOK_CROP)
    small = cv2.resize(crop, (LOOK_SIZE, LOOK_SIZE), interpolation=cv2.INTER_AREA)
    look = small.astype(np.float32).ravel()
    look -= look.mean()
    contrast = float(look.std())
    return None if contrast < PLAIN else np.asarray(look / np.linalg.norm(look), np.float32)


def compare_looks(one: Look | None, other: Look | None) -> float | None:
    """Correlation, -1 to 1; None where one isn't known."""
    return None if one is None or other is None else float(one @ other)


def shows(frame: NDArray[np.uint8], face: Face) -> bool:
    """Whether a frame in which nobody was detected shows a person's face at its box all the same.

    A detector misses some; somebody who left, or a cut, is told by the look.
    """
    if face.look is None:
        return True
    alike = compare_looks(describe_look(frame, face.box), face.look)
    return alike is not None and alike >= ALIKE


@dataclass
class _Track:
    """A face, where and in which slot it was last, and how it moved: pixels a slot."""

    face: Face
    slot: int
    speed: tuple[float, float] = (0.0, 0.0)

    def expected(self, slot: int) -> Face:
        """Where it would be now."""
        ahead = min(slot - self.slot, COASTING)
        box, (right, down) = self.face.box, self.speed
        moved = Box(box.x + ahead * right, box.y + ahead * down, box.width, box.height)
        return Face(moved, self.face.look)


class FaceTracker:
    """Follows the faces of used frames, each under a number of its own, from 1.

    A detection continues a track when its middle has moved by less than ``REACH`` sides from
    where it would be, its area changed by less than ``GROWTH``, and it looks the same. Of several
    pairs the closest are taken first: the overlap (intersection over union) less the distance in
    sides, plus how alike they look. Other detections begin tracks. A track that was not seen for
    ``memory`` slots is over.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._tracks: dict[int, _Track] = {}
        self._numbers = 0
        self._size: tuple[int, int] | None = None

    def update(self, faces: Sequence[Face], size: tuple[int, int], slot: int) -> dict[int, Face]:
        """Give the faces of a frame their tracks' numbers.

        Args:
            faces: in the frame's pixels, the largest first.
            size: the frame's height and width.
            slot: the slot that uses it.
        """
        self._adapt(size, slot)
        faces = faces[:MOST]
        expected = {number: track.expected(slot) for number, track in self._tracks.items()}
        away = {number: slot - track.slot for number, track in self._tracks.items()}
        found = match(expected, faces, away)
        for face in faces:
            if not any(face is taken for taken in found.values()):
                self._numbers += 1
                found[self._numbers] = face
        for number, face in found.items():
            before = self._tracks.get(number)
            speed = _speed(before, face, slot) if before else (0.0, 0.0)
            self._tracks[number] = _Track(face, slot, speed)
        return found

    def _adapt(self, size: tuple[int, int], slot: int) -> None:
        """Forget tracks that are over; bring the rest to a new frame size."""
        self._tracks = {
            number: track
            for number, track in self._tracks.items()
            if slot - track.slot < self._memory
        }
        if self._size is not None and size != self._size:
            down, right = size[0] / self._size[0], size[1] / self._size[1]
            for track in self._tracks.values():
                box = scale_box(track.face.box, self._size, size)
                track.face = Face(box, track.face.look)
                track.speed = track.speed[0] * right, track.speed[1] * down
        self._size = size


def match(
    tracks: Mapping[int, Face], faces: Sequence[Face], away: Mapping[int, int] | None = None
) -> dict[int, Face]:
    """Pair tracks with detections, the closest first; each at most once.

    Args:
        away: slots since each track was seen; by default 1.
    """
    slots = away or {}
    pairs = sorted(
        (
            (closeness, number, i)
            for number, last in tracks.items()
            for i, face in enumerate(faces)
            if (closeness := measure_closeness(last, face, slots.get(number, 1))) is not None
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    found: dict[int, Face] = {}
    taken: set[int] = set()
    for _, number, i in pairs:
        if number not in found and i not in taken:
            found[number] = faces[i]
            taken.add(i)
    return found


def measure_closeness(last: Face, face: Face, slots: int = 1) -> float | None:
    """IoU less the distance of the middles in sides, plus the likeness of their looks.

    None where it can't be the same person, ``slots`` later.
    """
    alike = compare_looks(last.look, face.look)
    if alike is not None and alike < ALIKE:
        return None
    one, other = last.box, face.box
    reach = FAR_REACH * max(slots, 1) if alike is not None and alike >= VERY_ALIKE else REACH
    distance, growth = measure_move(one, other)
    if distance >= reach or growth >= GROWTH:
        return None
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    overlap = max(width, 0.0) * max(height, 0.0)
    return overlap / (one.area + other.area - overlap) - distance + (alike or 0.0)


def measure_move(last: Box, box: Box) -> tuple[float, float]:
    """How far a box's middle moved, in its longest sides, and the factor between the areas."""
    side = max(last.width, last.height, box.width, box.height)
    right = last.x + last.width / 2 - (box.x + box.width / 2)
    down = last.y + last.height / 2 - (box.y + box.height / 2)
    growth = max(last.area, box.area) / max(min(last.area, box.area), 1e-9)
    return float(np.hypot(right, down)) / side, growth


def scale_box(box: Box, size: tuple[int, int], to_size: tuple[int, int]) -> Box:
    """A box of a frame of ``size`` (height, width) in one of ``to_size``."""
    down, right = to_size[0] / size[0], to_size[1] / size[1]
    return Box(box.x * right, box.y * down, box.width * right, box.height * down, box.score)


def choose_person(found: Sequence[Mapping[int, Face]], before: int | None = None) -> int | None:
    """Whom a window is about: the track seen in most frames; of several, the largest on average.

    A stream stays with the one it was about ``before``, as long as that is seen in at least half
    as many frames.

    Args:
        found: the faces of each of the window's frames, by the number of their track.

    Returns:
        The track's number, or None without any.
    """
    areas: dict[int, list[float]] = {}
    for faces in found:
        for number, face in faces.items():
            areas.setdefault(number, []).append(face.box.area)
    if not areas:
        return None
    longest = max(areas, key=lambda n: (len(areas[n]), float(np.mean(areas[n])), -n))
    stays = before in areas and 2 * len(areas[before]) >= len(areas[longest])
    return before if stays else longest


def list_people(found: Sequence[Mapping[int, Face]]) -> list[int]:
    """The tracks seen in at least ``CONFIRMED`` of a window's frames, by number."""
    numbers = [number for faces in found for number in faces]
    return sorted(n for n in set(numbers) if numbers.count(n) >= CONFIRMED)


def _speed(before: _Track, face: Face, slot: int) -> tuple[float, float]:
    last, box, slots = before.face.box, face.box, max(slot - before.slot, 1)
    right = box.x + box.width / 2 - last.x - last.width / 2
    down = box.y + box.height / 2 - last.y - last.height / 2
    return right / slots, down / slots
