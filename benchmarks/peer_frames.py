"""Frames of a clip through OpenCV, the way that peers' users read them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

#: Seconds of a window, and how many frames of it are looked at.
WINDOW, FRAMES = 3.6, 15
#: Frames a second that the reference implementation takes for granted.
FPS = 30


def read_centre(clip: Path) -> list[NDArray[np.uint8]]:
    """15 frames (H, W, 3) BGR where our runtime looks: each in the middle of its part of the
    centre window. What isn't shown isn't converted."""
    capture = cv2.VideoCapture(str(clip))
    fps, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    start = (count / fps - WINDOW) / 2
    times = [start + (i + 0.5) * WINDOW / FRAMES for i in range(FRAMES)]
    # The slack is rounding's: a frame that begins right then is the one on screen.
    picks = [min(max(int(time * fps + 1e-3), 0), count - 1) for time in times]
    frames: dict[int, NDArray[np.uint8]] = {}
    for number in range(picks[-1] + 1):
        if not capture.grab():  # fewer than the container promised
            break
        if number in picks:
            frames[number] = np.asarray(capture.retrieve()[1], np.uint8)
    last = max(frames)
    return [frames[min(pick, last)] for pick in picks]


def read_published(clip: Path) -> list[NDArray[np.uint8]]:
    """The frames (H, W, 3) BGR of the reference's ``extract_faces.py``, fewer of a short clip.

    It decodes a clip twice, once to count. Its test of the length is the wrong way round, so that
    nothing is cut from a long clip: the first seconds serve.
    """
    length = int(WINDOW * FPS)
    picks = {i * length // FRAMES + length // (2 * FRAMES) for i in range(FRAMES)}
    _decode(clip, set())
    return _decode(clip, picks)


def _decode(clip: Path, picks: set[int]) -> list[NDArray[np.uint8]]:
    """Decode all frames; those among ``picks``."""
    frames: list[NDArray[np.uint8]] = []
    capture = cv2.VideoCapture(str(clip))
    number = 0
    while True:
        more, frame = capture.read()
        if not more:
            return frames
        if number in picks:
            frames.append(np.asarray(frame, np.uint8))
        number += 1
