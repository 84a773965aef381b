"""What is timed, bundle or reference: the way from a clip to an answer, whole and by stage.

Preprocessing is the runtime's for both, so that what differs is the network.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mer_bench.profile import find_family, profile_bundle
from mer_runtime.inputs.clip import describe_voice, read_clip
from mer_runtime.inputs.face import FaceDetector, load_detector
from mer_runtime.inputs.face_search import FaceSearch
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.window_faces import EVERY, crop_person, find_faces
from mer_runtime.proof.choice import EngineChoice
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
    """A model that answers clips; a bundle or the reference."""

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
        """Time by layer (see ``mer_bench.profile``); None where the engine doesn't tell."""
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
        engine = self.recognizer.backend.name.partition(" ")[0]
        layers = profile_bundle(self.recognizer.bundle, engine, self.threads, windows)
        return None if layers is None else [layer.to_dict() for layer in layers]


class ReferenceSubject:
    """A checkpoint in PyTorch, eager, float32 (extra ``train``).

    Raises:
        CheckpointError: it can't be read.
    """

    def __init__(self, checkpoint: str, threads: int, detector: Path | None) -> None:
        import torch

        from mer.evaluate.classifier import open_model

        torch.set_num_threads(threads)
        self.engine = f"torch {torch.__version__.partition('+')[0]}"
        self._classifier = open_model(checkpoint).classifier
        self.spec = self._classifier.spec
        self._search = FaceSearch(lambda: open_detector(detector), threads)

    def predict(self, clip: Path) -> str:
        """The label of a clip, found as ``Recognizer.predict`` finds it.

        Raises:
            MissingModalityError: it shows no face and has no sound.
        """
        read = read_clip(clip, self.spec, self._search)
        logits = self.classify(read.mfcc, self.encode(read.faces.crops) if read.faces else None)
        return self.spec.labels[int(logits.argmax())]

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (n, S, S, 3) to features (n, F)."""
        return self._classifier.encode(faces)

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """MFCCs (n_mfcc, T) and features (frames, F) to logits (classes,)."""
        return self._classifier.classify(mfcc, features)

    def profile(self, windows: int) -> list[dict[str, Any]]:
        """Time by operator, from PyTorch's profiler: its layers bear no names."""
        # Before the profiler is there: it tells every start and stop.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        from torch.profiler import ProfilerActivity, profile

        faces = np.zeros(self.spec.video.shape, np.uint8)
        mfcc = np.zeros(self.spec.audio.shape, np.float32)
        times: dict[str, float] = defaultdict(float)
        self.classify(mfcc, self.encode(faces))
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(windows):
                self.classify(mfcc, self.encode(faces))
        for event in profiler.key_averages():
            times[event.key] += event.self_cpu_time_total / 1e3 / windows
        return [
            {
                "graph": "network",
                "name": name,
                "kind": name,
                "family": find_family(name),
                "milliseconds": round(taken, 4),
            }
            for name, taken in sorted(times.items(), key=lambda item: -item[1])
            if taken
        ]


def open_subject(
    kind: str,
    model: str,
    threads: int,
    detector: Path | None,
    backend: EngineChoice | None = None,
) -> Subject:
    """Load a ``bundle``, into ``backend`` or its own engine, or a ``reference``.

    Raises:
        BundleError, CheckpointError: it can't be loaded.
        MissingExtraError: the engine isn't installed.
    """
    if kind == "reference":
        return ReferenceSubject(model, threads, detector)
    return BundleSubject(Recognizer.load(model, threads, detector, backend=backend), threads)


def open_detector(file: Path | None) -> FaceDetector:
    """The one of ``load_detector``: all contenders get the same.

    Raises:
        FaceDetectorError: the file isn't YuNet's.
    """
    return load_detector(file)


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
            seen = find_faces(window.frames, detector, EVERY)
        with _timed(times, "crop"):
            faces = crop_person(window.frames, seen, spec.video)
        crops = faces.crops if faces else None
    if window.waveform is not None:
        with _timed(times, "mfcc"):
            mfcc = describe_voice(window.waveform, spec.audio)
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
