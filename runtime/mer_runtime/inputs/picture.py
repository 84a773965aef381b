"""Decoded frames to upright pictures: turned, mirrored and stretched as their metadata say."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from mer_runtime.errors import SpecError

#: That convert a picture. More are made anew for each, and a forked process waits for them in vain.
THREADS = 1
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


class FrameDrawer:
    """Shows a stream's frames.

    Its orientation is read from the first frame, and anew where the turn in it changes.

    Args:
        aspect: how many times as wide as high its pixels are; beyond ``ASPECTS`` it counts as 1.
    """

    def __init__(self, aspect: float = 1.0) -> None:
        self._aspect = aspect if 1 / ASPECTS <= aspect <= ASPECTS else 1.0
        self._known: tuple[int, Orientation] | None = None
        self._converter: Any = VideoReformatter()

    def size(self, frame: Any) -> tuple[int, int]:
        """Width and height in which a frame is shown: square pixels, upright, bounded."""
        width = frame.width * max(self._aspect, 1.0)
        height = frame.height / min(self._aspect, 1.0)
        scale = min(1.0, sqrt(LARGEST / (width * height)))
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        return size[::-1] if self._orientation(frame).transposed else size

    def draw(self, frame: Any, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """An ``av.VideoFrame`` as (H, W, 3) uint8 RGB, upright; perhaps a view.

        Args:
            size: width and height as shown, if not ``size(frame)``.
        """
        orientation = self._orientation(frame)
        shown = size or self.size(frame)
        width, height = shown[::-1] if orientation.transposed else shown
        # Averages where it shrinks a lot; for a picture of its own size the method doesn't matter.
        large = frame.width * frame.height > LARGEST
        method = {"interpolation": "AREA"} if large else {}
        rgb = self._converter.reformat(frame, width, height, "rgb24", threads=THREADS, **method)
        return orientation.show(rgb.to_ndarray())

    def _orientation(self, frame: Any) -> Orientation:
        # Once asked for, a frame's side data hold it in a cycle, so that its memory stays until
        # the garbage collector comes: some hundred megabytes of large frames. So only one is asked.
        turn = frame.rotation
        if self._known is None or self._known[0] != turn:
            self._known = (turn, read_orientation(frame))
        return self._known[1]


def check_frame(image: object) -> None:
    """Refuse what isn't a picture in colour.

    Raises:
        SpecError: not an array (H, W, 3) of uint8 with at least one pixel.
    """
    shape = getattr(image, "shape", type(image).__name__)
    kind = getattr(image, "dtype", "")
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        raise SpecError(f"a frame must be (H, W, 3) uint8, not {shape} {kind}{_advise(image)}")


def _advise(image: object) -> str:
    """What brings an array that is nearly a frame into shape."""
    if not isinstance(image, np.ndarray) or not image.size:
        return ""
    if image.ndim == 1:
        return ": sound is given as waveform="
    if image.dtype.kind == "f":
        return ": floats from 0 to 1 become one by (255 * frame).astype('uint8')"
    if image.ndim == 2 or image.shape[-1] == 1:
        return ": grey becomes one by cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)"
    if image.ndim == 3 and image.shape[0] == 3:
        return ": the colours are the last axis, frame.transpose(1, 2, 0)"
    if image.ndim == 3 and image.shape[2] == 4:
        return ": leave out the fourth channel, frame[..., :3]"
    return ""
