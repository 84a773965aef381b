"""Our runtime, doing what its peers do."""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.subject import open_detector
from mer_runtime import Recognizer
from mer_runtime.bundle import load_bundle
from mer_runtime.engines import open_backend
from mer_runtime.inputs.clip import read_clip
from mer_runtime.inputs.crops import crop_face
from mer_runtime.inputs.face import Box
from mer_runtime.inputs.face_search import FaceSearch
from mer_runtime.inputs.media import read_window
from mer_runtime.model import softmax


class Subject:
    """A bundle and a detector, loaded."""

    def __init__(self, options: argparse.Namespace, threads: int) -> None:
        bundle = load_bundle(options.bundle)
        self._clip: Path = options.clip
        self._spec = bundle.spec
        self._detector = open_detector(options.detector)
        backend = open_backend(bundle, threads)
        self._recognizer = Recognizer(bundle, backend, self._detector, threads)
        self._search = FaceSearch(lambda: self._detector, threads)
        self.tasks = {
            "inputs": lambda: read_clip(self._clip, self._spec, self._search),
            "detect": lambda: self._detector.detect(self._frame),
            "clip": lambda: self._recognizer.predict(self._clip),
            "crop": self._encode_crop,
        }

    def answer(self, clip: Path) -> dict[str, dict[str, float] | None]:
        """Probabilities of a clip by what they were made from; None where no face was found."""
        read = read_clip(clip, self._spec, self._search)
        features = None if read.faces is None else self._recognizer.encode(read.faces.crops)
        return {
            "face": None if features is None else self._classify(None, features),
            "both": self._classify(read.mfcc, features),
        }

    def describe(self) -> dict[str, Any]:
        prediction = self._recognizer.predict(self._clip)
        return {
            "detector": self._detector.name,
            "faces_found": prediction.faces_found,
            "frames": self._spec.video.frames,
            "mfcc": list(self._spec.audio.shape),
            "label": prediction.label,
            "engine": self._recognizer.backend.name,
        }

    def _classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> dict[str, float]:
        logits = self._recognizer.classify(mfcc, features)
        probabilities = softmax(logits / self._recognizer.bundle.temperatures.both)
        return dict(zip(self._spec.labels, probabilities.tolist(), strict=True))

    def _encode_crop(self) -> NDArray[np.float32]:
        crop = crop_face(self._frame, self._box, self._spec.video)
        return self._recognizer.encode(crop[None])

    @cached_property
    def _frame(self) -> NDArray[np.uint8]:
        frames = read_window(self._clip, self._spec).frames
        assert frames is not None
        return np.asarray(frames[len(frames) // 2])

    @cached_property
    def _box(self) -> Box:
        """The largest face; the whole picture where none is found."""
        height, width = self._frame.shape[:2]
        return self._detector.detect(self._frame) or Box(0, 0, width, height)
