"""Frames to face crops: squares around the boxes that were found, with a margin."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.face import Box
from mer_runtime.spec import VideoSpec


def find_nearest(known: Sequence[bool]) -> list[int] | None:
    """For each place the nearest that is known, the earlier of two equals; None without any."""
    places = [i for i, is_known in enumerate(known) if is_known]
    if not places:
        return None
    return [min(places, key=lambda k: (abs(k - i), k)) for i in range(len(known))]


def crop_face(frame: NDArray[np.uint8], box: Box, spec: VideoSpec) -> NDArray[np.uint8]:
    """One square crop (S, S, 3) around ``box``; beyond the frame its edge is repeated."""
    side = max(round(max(box.width, box.height) * (1 + spec.margin)), 2)
    left = round(box.x + box.width / 2 - side / 2)
    top = round(box.y + box.height / 2 - side / 2)
    height, width = frame.shape[:2]
    inside = frame[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    if inside.shape[:2] != (side, side):
        rows = np.clip(np.arange(top, top + side), 0, height - 1)
        columns = np.clip(np.arange(left, left + side), 0, width - 1)
        inside = frame[rows[:, None], columns[None, :]]
    # Area averaging shrinks without aliasing; it can't enlarge.
    method = cv2.INTER_AREA if side > spec.size else cv2.INTER_LINEAR
    crop = cv2.resize(np.ascontiguousarray(inside), (spec.size, spec.size), interpolation=method)
    if spec.colour == "bgr":
        crop = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    return np.asarray(crop, np.uint8)
