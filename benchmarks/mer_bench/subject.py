"""What is timed, bundle or reference: the way from a clip to an answer, whole and by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.face import FaceDetector, HaarDetector, YuNetDetector, crop_detected
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.recognizer import Recognizer
from mer_runtime.spec import Spec

#: In the order in which a clip goes through them.
STAGES = ("decode", "detect", "crop", "mfcc", "encoder", "head")
#: The model alone, ``encoder`` and ``head`` together; and a clip from its file to its answer.
WINDOW, TOTAL = "window", "total"
#: Processor time of a clip, over all threads.
CPU = "cpu"
#: Everything that is timed, in the order of tables.
MEASURES = (*STAGES, WINDOW, TOTAL, CPU)


class Subject(Protocol):
    """A model that answers clips; ``Recognizer`` through ``BundleSubject``, or the reference."""

    @property
    def spec(self) -> Spec: ...

    @property
    def engine(self) -> str:
        """Name and version."""
        ...

    def predict(self, clip: Path) -> str:
        """The label of a clip, the way a user gets it."""
        ...

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (n, S, S, 3) to features (n, F)."""
        ...

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """MFCCs (n_mfcc, T) and features (frames, F), None where missing, to logits."""
        ...

    def profile(self, windows: int) -> list[dict[str, Any]] | None:
        """Time by layer (see ``bench.profile``); None where the engine doesn't tell."""
        ...


@dataclass
class BundleSubject:
    """A bundle in the runtime's own hands."""

    recognizer: Recognizer
    threads: int

    @property
    def spec(self) -> Spec:
        return self.recognizer.spec

    @property
    def engine(self) -> str:
        return self.recognizer.backend.name

    def predict(self, clip: Path) -> str:
        return self.recognizer.predict(clip).label

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.recognizer.encode(faces)

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        return self.recognizer.classify(mfcc, features)

    def profile(self, windows: int) -> list[dict[str, Any]] | None:
        from mer_bench.profile import profile_bundle

        layers = profile_bundle(self.recognizer.bundle, self.threads, windows)
        return None if layers is None else [layer.to_dict() for layer in layers]


def open_detector(file: Path | None) -> FaceDetector:
    """YuNet from ``file``, else the Haar cascade: all contenders get the same one.

    Raises:
        FaceDetectorError: the file isn't YuNet's.
    """
    return YuNetDetector(file) if file else HaarDetector()


def time_query(subject: Subject, detector: FaceDetector, clip: Path) -> dict[str, float]:
    """Milliseconds of one clip by measure: end to end, then its stages one after the other.

    End to end the search for faces runs beside the decoding where there are threads for it, so
    the stages may add up to more. A stage of a modality that the clip lacks has no time.
    """
    start, used = time.perf_counter(), time.process_time()
    subject.predict(clip)
    found = {
        TOTAL: 1e3 * (time.perf_counter() - start),
        CPU: 1e3 * (time.process_time() - used),
    }
    return found | time_stages(subject, detector, clip)


def time_stages(subject: Subject, detector: FaceDetector, clip: Path) -> dict[str, float]:
    """Milliseconds of each stage alone, and of the model's two together (``window``)."""
    spec, times = subject.spec, dict[str, float]()
    mfcc = crops = features = None
    with _timed(times, "decode"):
        window = read_window(clip, spec)
    if window.frames is not None:
        with _timed(times, "detect"):
            boxes = [detector.detect(frame) for frame in window.frames]
        with _timed(times, "crop"):
            faces = crop_detected(window.frames, boxes, spec.video)
        crops = faces.crops if faces else None
    if window.waveform is not None and window.waveform.any():
        with _timed(times, "mfcc"):
            mfcc = compute_mfcc(window.waveform, spec.audio)
    if crops is not None:
        with _timed(times, "encoder"):
            features = subject.encode(crops)
    with _timed(times, "head"):
        subject.classify(mfcc, features)
    times[WINDOW] = times.get("encoder", 0.0) + times["head"]
    return times


@contextmanager
def _timed(times: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times[stage] = 1e3 * (time.perf_counter() - start)
