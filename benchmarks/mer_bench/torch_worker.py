"""The float reference as a contender of ``mer-bench``, in a process of its own.

    python -m mer_bench.torch_worker CHECKPOINT CLIP --threads 2 --cores 0,1

``mer_bench.worker`` tells what it reads and writes. Preprocessing is the runtime's, so
that what differs is the network: eager PyTorch, float32.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.profile import find_family
from mer_bench.subject import open_detector
from mer_bench.worker import WorkerOptions, read_options, serve
from mer_runtime.inputs.clip import read_clip
from mer_runtime.inputs.face_search import FaceSearch


class ReferenceSubject:
    """A checkpoint in PyTorch, as ``mer_bench.subject.Subject``.

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
        """The label of a clip, found as ``mer_runtime.Recognizer.predict`` finds it.

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


def main() -> None:
    """Serve a checkpoint."""

    def load(options: WorkerOptions) -> ReferenceSubject:
        return ReferenceSubject(options.model, options.threads, options.detector)

    serve(read_options(), load)


if __name__ == "__main__":
    main()
