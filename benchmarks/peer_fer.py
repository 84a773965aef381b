"""The package fer (github.com/justinshenk/fer): faces to seven emotions, with what it defaults to.

Haar finds the faces, a quantised TensorFlow Lite network names the emotion. It sees one picture at
a time; a clip's answer here is the mean over frames at the places where our runtime looks, too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from fer.fer import FER
from numpy.typing import NDArray

from peer_frames import FRAMES, read_centre

PACKAGES = ("fer", "tensorflow-cpu", "opencv-python-headless")


class Subject:
    """The package, loaded."""

    def __init__(self, options: argparse.Namespace, threads: int) -> None:
        cv2.setNumThreads(threads)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._clip: Path = options.clip
        self._fer = FER()
        self.tasks = {
            "clip": lambda: self.label(self._clip),
            "crop": lambda: self._fer.detect_emotions(self._frame, face_rectangles=self._box),
            "detect": lambda: self._fer.find_faces(self._frame),
        }

    def answer(self, clip: Path) -> dict[str, dict[str, float] | None]:
        """Scores of a clip by what they were made from; None where no face was found."""
        seen = self._score_frames(clip)
        if not seen:
            return {"face": None}
        return {"face": {name: float(np.mean([row[name] for row in seen])) for name in seen[0]}}

    def label(self, clip: Path) -> str | None:
        """The emotion with the highest score."""
        scores = self.answer(clip)["face"]
        return None if scores is None else max(scores, key=scores.__getitem__)

    def describe(self) -> dict[str, Any]:
        return {
            "detector": "haar",
            "faces_found": len(self._score_frames(self._clip)),
            "frames": FRAMES,
            "label": self.label(self._clip),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }

    @cached_property
    def _frame(self) -> NDArray[np.uint8]:
        return read_centre(self._clip)[FRAMES // 2]

    @cached_property
    def _box(self) -> list[Any]:
        """The largest face; the whole picture where none is found."""
        height, width = self._frame.shape[:2]
        faces = [tuple(map(int, face)) for face in self._fer.find_faces(self._frame)]
        return [max(faces, key=lambda face: face[2], default=(0, 0, width, height))]

    def _score_frames(self, clip: Path) -> list[dict[str, float]]:
        """Scores of the largest face of each frame that shows one."""
        seen = []
        for frame in read_centre(clip):
            faces = self._fer.detect_emotions(frame)
            if faces:
                seen.append(max(faces, key=lambda face: face["box"][2])["emotions"])
        return seen
