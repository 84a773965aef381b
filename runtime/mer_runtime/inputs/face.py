"""Where faces are in a frame: YuNet, which comes with this package, or OpenCV's Haar cascade."""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import FaceDetectorError, MerWarning, SpecError, lacks_memory
from mer_runtime.files import is_there
from mer_runtime.inputs.detector_check import KNOWN_SHA256, read_detector
from mer_runtime.spec import Detector

#: Names the detector where the command line doesn't: a YuNet file, or ``haar``.
DETECTOR_VARIABLE = "MER_FACE_DETECTOR"
#: Asks for the Haar cascade where a YuNet file could be named.
HAAR = "haar"
#: Pixels: a frame's longer side as the detector sees it at first.
DETECTION_SIZE = 320
#: What that may be set to.
DETECTION_SIZES = (64, 4096)
YUNET_SCORE = 0.6
#: YuNet of OpenCV's model zoo; the licence (MIT) lies beside it.
SHIPPED_YUNET = Path(__file__).with_name("yunet") / "face_detection_yunet_2023mar.onnx"
#: The frontal-face cascade in OpenCV's 4.x wheels.
HAAR_CASCADE = "haarcascade_frontalface_default.xml"
#: Where a system's own OpenCV keeps it.
SYSTEM_CASCADES = ("/usr/share/opencv4/haarcascades", "/usr/local/share/opencv4/haarcascades")


@dataclass(frozen=True)
class Box:
    """A face in pixels of its frame; may reach beyond the frame's edges.

    ``score`` is how sure the detector was, 0 to 1; it doesn't count when boxes are compared.
    """

    x: float
    y: float
    width: float
    height: float
    score: float = field(default=1.0, compare=False)

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

    It looks at a frame whose longer side is shrunk to ``size`` pixels and, where that shows no
    face, again at twice that, which takes four times as long: far faces are small.

    Args:
        file: by default the one that comes with this package.
        size: pixels, ``DETECTION_SIZES``.

    Raises:
        FaceDetectorError: the file is missing or not a YuNet model, or this OpenCV can't run it.
        SpecError: no such ``size``.
    """

    name: Detector = "yunet"

    def __init__(self, file: str | Path = SHIPPED_YUNET, size: int = DETECTION_SIZE) -> None:
        self.file = path = Path(file)
        self.size = check_size(size)
        if not hasattr(cv2, "FaceDetectorYN"):
            raise FaceDetectorError(
                f"OpenCV {cv2.__version__} here has no YuNet (cv2.FaceDetectorYN): "
                f"name --face-detector {HAAR}, or install opencv-python-headless"
            )
        content = read_detector(path)
        if path == SHIPPED_YUNET and hashlib.sha256(content).hexdigest() != KNOWN_SHA256:
            raise FaceDetectorError(f"{path}: it was changed since it came: install mer-edge again")
        # From memory: OpenCV can't open some paths that Python can.
        model = np.frombuffer(content, np.uint8)
        try:
            self._net = cv2.FaceDetectorYN.create(
                "onnx", model, np.zeros(0, np.uint8), (size, size), YUNET_SCORE
            )
            self._look(np.zeros((64, 64, 3), np.uint8), size)
        except (cv2.error, OSError) as error:
            if lacks_memory(error):
                raise MemoryError from error
            raise FaceDetectorError(
                f"{path}: not a YuNet face detector (face_detection_yunet_2023mar.onnx)"
            ) from error

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        return next(iter(self.detect_all(frame)), None)

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        found = self._look(frame, self.size)
        if not found and max(frame.shape[:2]) > self.size:
            found = self._look(frame, 2 * self.size)
        return found

    def _look(self, frame: NDArray[np.uint8], size: int) -> list[Box]:
        small, scale = _shrink(frame, size)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, faces = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if faces is None:
            return []
        boxes = []
        for row in np.asarray(faces):  # the box, five landmarks and the score
            left, top, width, height = (row[:4] / scale).tolist()
            boxes.append(Box(left, top, width, height, float(row[-1])))
        return _plausible(boxes, frame)


class HaarDetector:
    """The Haar cascade (Viola & Jones 2001) that OpenCV's wheels carry. It has no second look.

    Raises:
        FaceDetectorError: this OpenCV has none.
        SpecError: no such ``size``.
    """

    name: Detector = "haar"

    def __init__(self, size: int = DETECTION_SIZE) -> None:
        self.file = find_haar_cascade()
        self.size = check_size(size)
        try:
            self._cascade = cv2.CascadeClassifier(str(self.file))
            missing = self._cascade.empty()
        except (AttributeError, cv2.error):
            missing = True
        if missing:
            raise FaceDetectorError(
                f"OpenCV {cv2.__version__} here has no Haar cascade ({self.file}): "
                f"leave out --face-detector {HAAR}, and YuNet serves"
            )

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        return next(iter(self.detect_all(frame)), None)

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        small, scale = _shrink(frame, self.size)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        faces = self._cascade.detectMultiScale(grey)
        return _plausible([Box(*(float(v) / scale for v in face)) for face in faces], frame)


def open_again(detector: FaceDetector) -> FaceDetector | None:
    """Another detector of the same kind, for another thread; None for one that isn't ours."""
    if isinstance(detector, YuNetDetector):
        return YuNetDetector(detector.file, detector.size)
    return HaarDetector(detector.size) if isinstance(detector, HaarDetector) else None


def find_haar_cascade() -> Path:
    """Where OpenCV's wheel keeps the cascade, or a system's own OpenCV, as JetPack's."""
    folder: Any = getattr(getattr(cv2, "data", None), "haarcascades", "")
    files = [Path(one) / HAAR_CASCADE for one in (folder, *SYSTEM_CASCADES)]
    return next((file for file in files if is_there(file)), files[0])


def find_named_detector(name: str | Path | None = None) -> Path | None:
    """The detector that is asked for: ``name``, else that of ``$MER_FACE_DETECTOR``, else None."""
    named = name or os.environ.get(DETECTOR_VARIABLE)
    return Path(named) if named else None


def load_detector(
    name: str | Path | None = None,
    *,
    bundled: Path | None = None,
    trained: Detector = "yunet",
    size: int = DETECTION_SIZE,
) -> YuNetDetector | HaarDetector:
    """Open the face detector to use.

    That is the one asked for by ``name`` or by ``$MER_FACE_DETECTOR``, else the bundle's, else
    the YuNet that comes with this package. The Haar cascade serves where it is asked for by the
    name ``haar``, where the model was trained on its faces, and, with a ``MerWarning``, where
    OpenCV was built without YuNet.

    Args:
        name: a YuNet file, or ``haar``.
        bundled: the YuNet file of a bundle.
        trained: what found the faces in training.
        size: pixels, see ``YuNetDetector``.

    Raises:
        FaceDetectorError: the file is missing or not a YuNet model, or this OpenCV can't run it.
        SpecError: no such ``size``.
    """
    named = find_named_detector(name) or bundled
    if named is None and trained == HAAR:
        named = Path(HAAR)
    if named is not None:
        return HaarDetector(size) if named == Path(HAAR) else YuNetDetector(named, size)
    if hasattr(cv2, "FaceDetectorYN"):
        return YuNetDetector(size=size)
    warnings.warn(
        f"OpenCV {cv2.__version__} here has no YuNet (cv2.FaceDetectorYN): "
        "the Haar cascade serves, which finds fewer faces",
        MerWarning,
        stacklevel=2,
    )
    return HaarDetector(size)


def check_size(size: int) -> int:
    """The size itself.

    Raises:
        SpecError: it is none of ``DETECTION_SIZES``.
    """
    least, most = DETECTION_SIZES
    if not least <= size <= most:
        raise SpecError(f"detect_size must be {least} to {most} pixels, not {size}")
    return size


def _shrink(frame: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], float]:
    """The frame with a longer side of at most ``size``, and its scale."""
    scale = min(1.0, size / max(frame.shape[:2]))
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
