"""What the reference implementation makes of a clip before its network sees it, step by step.

The reference is github.com/katerynaCh/multimodal-emotion-recognition, which the paper runs again:
``extract_faces.py``, ``extract_audios.py`` and ``datasets/ravdess.py``. Its steps are kept, and
what it reads; that it writes frames and sound to files and reads them again isn't.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import librosa
import numpy as np
import torch
from numpy.typing import NDArray

from peer_frames import FRAMES, WINDOW, read_published
from peer_nms import load_torchvision

#: Its constants.
SIZE, SAMPLE_RATE, N_MFCC = 224, 22050, 10
PACKAGES = ("torch", "torchvision", "facenet-pytorch", "librosa", "opencv-python-headless")


class Subject:
    """Its preprocessing, loaded."""

    def __init__(self, options: argparse.Namespace, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self._clip: Path = options.clip
        self._voice: Path = options.voice
        self._suppression = load_torchvision()
        from facenet_pytorch import MTCNN

        self._mtcnn = MTCNN(image_size=(720, 1280), device="cpu")
        self.tasks = {"inputs": self.prepare, "detect": lambda: self.detect(self._frame)}

    def prepare(self) -> tuple[NDArray[np.uint8], NDArray[np.float32], int]:
        """Crops (15, 224, 224, 3) BGR, MFCCs (10, T), and in how many frames a face was found."""
        crops: list[NDArray[Any]] = []
        box, found = None, 0
        for frame in read_published(self._clip):
            here = self.detect(frame)
            box, found = here or box, found + (here is not None)
            if box is not None:
                left, top, right, bottom = box
                crops.append(cv2.resize(frame[top:bottom, left:right], (SIZE, SIZE)))
        # It pads with black at the end.
        crops += [np.zeros((SIZE, SIZE, 3), np.uint8)] * (FRAMES - len(crops))
        return np.stack(crops), self._compute_mfcc(), found

    def detect(self, frame: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
        """Edges of the largest face of a BGR frame: left, top, right, bottom."""
        boxes, _ = self._mtcnn.detect(torch.tensor(frame[:, :, ::-1].copy()))
        if boxes is None:
            return None
        left, top, right, bottom = (max(round(float(edge)), 0) for edge in boxes[0])
        return left, top, right, bottom

    def describe(self) -> dict[str, Any]:
        crops, mfcc, found = self.prepare()
        return {
            "detector": "mtcnn",
            "suppression": self._suppression,
            "faces_found": found,
            "frames": len(crops),
            "mfcc": list(mfcc.shape),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }

    @cached_property
    def _frame(self) -> NDArray[np.uint8]:
        frames = read_published(self._clip)
        return frames[len(frames) // 2]

    def _compute_mfcc(self) -> NDArray[np.float32]:
        voice, rate = librosa.load(self._voice, sr=SAMPLE_RATE)
        length = int(rate * WINDOW)
        cut = max(len(voice) - length, 0)
        voice = voice[cut // 2 : len(voice) - (cut - cut // 2)]
        voice = np.pad(voice, (0, length - len(voice)))
        return np.asarray(librosa.feature.mfcc(y=voice, sr=rate, n_mfcc=N_MFCC))
