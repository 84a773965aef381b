"""Frames to face crops: detection with YuNet or Haar, square crops with a margin."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import FaceDetectorError, MerWarning
from mer_runtime.files import is_there
from mer_runtime.spec import Detector, VideoSpec

#: Names the YuNet file where neither the command line nor a bundle gives one.
DETECTOR_VARIABLE = "MER_FACE_DETECTOR"
#: Pixels: a frame's longer side as the detector sees it.
DETECTION_SIZE = 320
YUNET_SCORE = 0.6
#: The frontal-face cascade in OpenCV's 4.x wheels.
HAAR_CASCADE = "haarcascade_frontalface_default.xml"
#: Where a system's own OpenCV keeps it.
SYSTEM_CASCADES = ("/usr/share/opencv4/haarcascades", "/usr/local/share/opencv4/haarcascades")


@dataclass(frozen=True)
class Box:
    """A face in pixels of its frame; may reach beyond the frame's edges."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height


class FaceDetector(Protocol):
    """Finds the faces of a frame."""

    @property
    def name(self) -> Detector: ...

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        """The largest face of an RGB frame (H, W, 3) uint8, or None."""
        ...

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        """All faces of an RGB frame (H, W, 3) uint8, the largest first."""
        ...


class YuNetDetector:
    """YuNet (Wu, Peng & Yu 2023) through ``cv2.FaceDetectorYN``.

    Raises:
        FaceDetectorError: the file is missing or not a YuNet model.
    """

    name: Detector = "yunet"

    def __init__(self, file: str | Path) -> None:
        path = Path(file)
        if not is_there(path):
            raise FaceDetectorError(f"{path}: there is no such face detector file")
        self.file = path
        try:
            # From memory: OpenCV can't open some paths that Python can.
            model = np.frombuffer(path.read_bytes(), np.uint8)
            self._net = cv2.FaceDetectorYN.create(
                "onnx", model, np.zeros(0, np.uint8), (DETECTION_SIZE, DETECTION_SIZE), YUNET_SCORE
            )
            self.detect(np.zeros((64, 64, 3), np.uint8))
        except AttributeError as error:
            raise FaceDetectorError(f"{path}: this OpenCV has no YuNet: install 4.10") from error
        except (cv2.error, OSError) as error:
            raise FaceDetectorError(
                f"{path}: not a YuNet face detector (face_detection_yunet_2023mar.onnx)"
            ) from error

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        return next(iter(self.detect_all(frame)), None)

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        small, scale = _shrink(frame)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, faces = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if faces is None:
            return []
        return _plausible([Box(*(np.asarray(face)[:4] / scale).tolist()) for face in faces], frame)


class HaarDetector:
    """The Haar cascade (Viola & Jones 2001) that OpenCV's wheels carry."""

    name: Detector = "haar"

    def __init__(self) -> None:
        path = find_haar_cascade()
        # OpenCV 5 has moved the class out of its main wheels.
        make = getattr(cv2, "CascadeClassifier", None)
        self._cascade: Any = make(str(path)) if make else None
        if self._cascade is None or self._cascade.empty():
            raise FaceDetectorError(
                f"{path}: no Haar cascade in this OpenCV: give a YuNet file with --face-detector"
            )

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        return next(iter(self.detect_all(frame)), None)

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        small, scale = _shrink(frame)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        faces = self._cascade.detectMultiScale(grey)
        return _plausible([Box(*(float(v) / scale for v in face)) for face in faces], frame)


def open_again(detector: FaceDetector) -> FaceDetector | None:
    """Another detector of the same kind, for another thread; None for one that isn't ours."""
    if isinstance(detector, YuNetDetector):
        return YuNetDetector(detector.file)
    return HaarDetector() if isinstance(detector, HaarDetector) else None


def find_haar_cascade() -> Path:
    """Where OpenCV's wheel keeps the cascade, or a system's own OpenCV, as JetPack's."""
    data: Any = getattr(cv2, "data", None)
    folders = [data.haarcascades] if data else []
    files = [Path(folder) / HAAR_CASCADE for folder in (*folders, *SYSTEM_CASCADES)]
    return next((file for file in files if is_there(file)), files[0])


def find_detector_file(file: str | Path | None = None) -> Path | None:
    """The YuNet file to use: ``file``, else that of ``$MER_FACE_DETECTOR``, else None."""
    named = file or os.environ.get(DETECTOR_VARIABLE)
    return Path(named) if named else None


def load_detector(file: str | Path | None = None) -> FaceDetector:
    """YuNet from ``file`` or from ``$MER_FACE_DETECTOR``, else Haar with a warning.

    Raises:
        FaceDetectorError: the file named is missing or not a YuNet model.
    """
    found = find_detector_file(file)
    if found:
        return YuNetDetector(found)
    warnings.warn(
        "no YuNet file given (--face-detector or $MER_FACE_DETECTOR): "
        "the Haar cascade serves, which finds fewer faces",
        MerWarning,
        stacklevel=2,
    )
    return HaarDetector()


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


def _shrink(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """The frame with a longer side of at most ``DETECTION_SIZE``, and its scale."""
    scale = min(1.0, DETECTION_SIZE / max(frame.shape[:2]))
    if scale == 1.0:
        return frame, scale
    width = max(round(frame.shape[1] * scale), 1)
    height = max(round(frame.shape[0] * scale), 1)
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), scale


def _plausible(boxes: list[Box], frame: NDArray[np.uint8]) -> list[Box]:
    """Boxes whose middle lies in the frame, largest first; YuNet answers nonsense for slivers."""
    height, width = frame.shape[:2]
    real = [
        box
        for box in boxes
        if box.width >= 1
        and box.height >= 1
        and 0 <= box.x + box.width / 2 <= width
        and 0 <= box.y + box.height / 2 <= height
    ]
    return sorted(real, key=lambda box: box.area, reverse=True)
