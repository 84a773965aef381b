"""Frames to face crops: squares around the boxes that were found, with a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.face import Box, FaceDetector
from mer_runtime.spec import VideoSpec


@dataclass(frozen=True)
class FaceCrops:
    """The face in each frame of a window.

    Attributes:
        crops: (frames, S, S, 3) uint8 in the spec's colour order.
        boxes: the box used in each frame.
        found: (frames,) bool, where a face was detected; elsewhere the nearest frame's box
            was taken.
    """

    crops: NDArray[np.uint8]
    boxes: tuple[Box, ...]
    found: NDArray[np.bool_]


def crop_faces(
    frames: NDArray[np.uint8], spec: VideoSpec, detector: FaceDetector
) -> FaceCrops | None:
    """Detect and crop the largest face of each frame.

    Args:
        frames: (n, H, W, 3) uint8 RGB.

    Returns:
        Crops, or None where no frame shows a face: the modality is missing.
    """
    detected: list[Box | None] = []
    for i, frame in enumerate(frames):
        repeated = i > 0 and np.array_equal(frame, frames[i - 1])  # a low frame rate repeats
        detected.append(detected[-1] if repeated else detector.detect(frame))
    return crop_detected(frames, detected, spec)


def crop_detected(
    frames: NDArray[np.uint8], detected: Sequence[Box | None], spec: VideoSpec
) -> FaceCrops | None:
    """Crop frames (n, H, W, 3) uint8 RGB around the boxes detected in them, as ``crop_faces``."""
    boxes = fill_boxes(detected)
    if boxes is None:
        return None
    crops = [crop_face(f, b, spec) for f, b in zip(frames, boxes, strict=True)]
    found = np.array([box is not None for box in detected])
    return FaceCrops(np.stack(crops), boxes, found)


def fill_boxes(detected: Sequence[Box | None]) -> tuple[Box, ...] | None:
    """Give each frame without a face the box of the nearest one, the earlier of two equals."""
    nearest = find_nearest([box is not None for box in detected])
    if nearest is None:
        return None
    return tuple(box for k in nearest if (box := detected[k]) is not None)


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
