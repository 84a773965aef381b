"""Which face of a frame is which face of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mer_runtime.inputs.face import Box

Faces = Literal["one", "all"]

#: Faces of a frame that are followed at most, the largest ones.
MOST = 5
#: A face moves by less than this many of its sides from one used frame to the next it is in.
REACH = 1.0
#: Its area changes by less than this factor meanwhile.
GROWTH = 4.0


@dataclass
class _Track:
    """A face, where it was last and in which slot."""

    box: Box
    slot: int


class FaceTracker:
    """Follows one face, or all, from used frame to used frame.

    A detection continues a track when its middle has moved by less than ``REACH`` sides and its
    area changed by less than ``GROWTH``. Of several pairs the closest are taken first: the
    overlap (intersection over union) less the distance in sides.

    With ``one`` the face followed is the one that continues the last; where none does, it is
    the largest, under a new number. With ``all`` each of the ``MOST`` largest detections
    continues a track or begins one. A track that was not seen for ``memory`` slots is over.
    """

    def __init__(self, faces: Faces, memory: int) -> None:
        self._one = faces == "one"
        self._memory = memory
        self._tracks: dict[int, _Track] = {}
        self._numbers = 0
        self._size: tuple[int, int] | None = None

    def update(self, boxes: Sequence[Box], size: tuple[int, int], slot: int) -> dict[int, Box]:
        """Give the detections of a frame their tracks' numbers.

        Args:
            boxes: in the frame's pixels, the largest first.
            size: the frame's height and width.
            slot: the slot that uses it.
        """
        self._adapt(size, slot)
        boxes = boxes if self._one else boxes[:MOST]
        found = match({number: track.box for number, track in self._tracks.items()}, boxes)
        if self._one and boxes:
            self._tracks.clear()  # a face that takes over ends the one before
        for box in boxes if not (self._one and found) else ():
            if box not in found.values():
                self._numbers += 1
                found[self._numbers] = box
                if self._one:
                    break
        self._tracks.update({number: _Track(box, slot) for number, box in found.items()})
        return found

    def _adapt(self, size: tuple[int, int], slot: int) -> None:
        """Forget tracks that are over; bring the rest to a new frame size."""
        self._tracks = {
            number: track
            for number, track in self._tracks.items()
            if slot - track.slot < self._memory
        }
        if self._size is not None and size != self._size:
            for track in self._tracks.values():
                track.box = scale_box(track.box, self._size, size)
        self._size = size


def match(tracks: Mapping[int, Box], boxes: Sequence[Box]) -> dict[int, Box]:
    """Pair tracks with detections, the closest first; each at most once."""
    pairs = sorted(
        (
            (closeness, number, i)
            for number, last in tracks.items()
            for i, box in enumerate(boxes)
            if (closeness := measure_closeness(last, box)) is not None
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    found: dict[int, Box] = {}
    taken: set[int] = set()
    for _, number, i in pairs:
        if number not in found and i not in taken:
            found[number] = boxes[i]
            taken.add(i)
    return found


def measure_closeness(last: Box, box: Box) -> float | None:
    """IoU less the distance of the middles in sides; None where it can't be the same face."""
    side = max(last.width, last.height, box.width, box.height)
    right = last.x + last.width / 2 - (box.x + box.width / 2)
    down = last.y + last.height / 2 - (box.y + box.height / 2)
    distance = float(np.hypot(right, down)) / side
    growth = max(last.area, box.area) / max(min(last.area, box.area), 1e-9)
    if distance >= REACH or growth >= GROWTH:
        return None
    width = min(last.x + last.width, box.x + box.width) - max(last.x, box.x)
    height = min(last.y + last.height, box.y + box.height) - max(last.y, box.y)
    overlap = max(width, 0.0) * max(height, 0.0)
    return overlap / (last.area + box.area - overlap) - distance


def scale_box(box: Box, size: tuple[int, int], to_size: tuple[int, int]) -> Box:
    """A box of a frame of ``size`` (height, width) in one of ``to_size``."""
    down, right = to_size[0] / size[0], to_size[1] / size[1]
    return Box(box.x * right, box.y * down, box.width * right, box.height * down)
