"""Decoded frames to upright pictures: turned, mirrored and stretched as their metadata say."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Pixels of a picture at most; a larger one is scaled down while it is converted.
LARGEST = 1920 * 1080
#: Widths to heights of a pixel that are believed, and their inverses.
ASPECTS = 10.0


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to show a picture: transposed first, then mirrored."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def show(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) as stored to (H, W, 3) or (W, H, 3) as shown; a view."""
        shown = stored.transpose(1, 0, 2) if self.transposed else stored
        return shown[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def read_orientation(frame: Any) -> Orientation:
    """How an ``av.VideoFrame`` is to be shown, by its display matrix.

    A matrix that is none of the eight counts as the nearest: a turn by 30° is none, by 60° is 90°.
    What it stretches, shears or shifts besides is left out.
    """
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # a kind of side data that this PyAV has no name for
        turns = round(frame.rotation / 90) % 4  # counter-clockwise
        return Orientation(turns % 2 == 1, turns in (2, 3), turns in (1, 2))
    if found is None:
        return Orientation()
    # x' = a x + c y and y' = b x + d y, both downwards and to the right.
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].astype(np.int64).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, c < 0, b < 0)
    return Orientation(False, a < 0, d < 0)


def shown_size(frame: Any, aspect: float) -> tuple[int, int]:
    """Width and height in which ``draw_picture`` shows a frame: square pixels, upright, bounded.

    Args:
        aspect: how many times as wide as high its pixels are.
    """
    width, height = float(frame.width), float(frame.height)
    if 1 < aspect <= ASPECTS:
        width *= aspect
    elif 1 / ASPECTS <= aspect < 1:
        height /= aspect
    scale = min(1.0, sqrt(LARGEST / (width * height)))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return size[::-1] if read_orientation(frame).transposed else size


def draw_picture(frame: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An ``av.VideoFrame`` as (H, W, 3) uint8 RGB, upright; perhaps a view.

    Args:
        size: width and height as shown.
    """
    orientation = read_orientation(frame)
    width, height = size[::-1] if orientation.transposed else size
    # Averages where it shrinks a lot; for a picture of its own size the method doesn't matter.
    method = {"interpolation": "AREA"} if frame.width * frame.height > LARGEST else {}
    rgb = frame.reformat(width=width, height=height, format="rgb24", **method)
    return orientation.show(rgb.to_ndarray())
