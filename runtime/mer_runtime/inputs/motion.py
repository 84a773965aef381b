"""Whether pictures move on with time: a frozen camera shows a face, and nobody."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

#: Cells of a sketch: width and height.
CELLS = (64, 36)
#: Pixels of a picture's shorter side that a sketch is made of, at least: not all, for speed.
USED_PIXELS = 180
#: Levels (of 255) by which a cell must change. Codecs change a frozen picture by 1 to 5, somebody
#: who sits still changes it by more than 20 in a window.
MOVES = 4.0

Sketch = NDArray[np.float32]


def sketch(frame: NDArray[np.uint8]) -> Sketch:
    """The mean grey of a frame's cells, (36, 64) float32, from RGB (H, W, 3) uint8."""
    step = max(min(frame.shape[:2]) // USED_PIXELS, 1)
    height, width = (length // step for length in frame.shape[:2])
    whole = frame[: height * step, : width * step]
    # Every step-th pixel: as slicing gives it, in a tenth of the time.
    thinned = cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST)
    cells = cv2.resize(thinned, CELLS, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(cells, cv2.COLOR_RGB2GRAY), np.float32)


def moves_on(sketches: Sequence[Sketch]) -> bool:
    """Whether a window's pictures are of something that happens; one picture can't tell, and is."""
    first, *rest = sketches
    return not rest or any(float(np.abs(one - first).max()) > MOVES for one in rest)
