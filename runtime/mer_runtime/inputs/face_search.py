"""Faces looked for in several pictures at once, while later ones are still being decoded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.crops import FaceCrops, crop_detected, crop_faces
from mer_runtime.inputs.face import Box, FaceDetector, open_again
from mer_runtime.spec import VideoSpec


class FaceSearch:
    """The faces of one window after another, each in a ``with`` statement of its own.

    Threads that take a picture each serve better than OpenCV's own within one picture, so those
    rest inside the statement. A detector serves one thread at a time: each thread has its own.

    Args:
        open_detector: called once, in the caller's thread, when the first picture comes.
        threads: how many look for faces. With 1, and with a detector that can't be opened
            again, that is the caller's, once it asks for the crops.
    """

    def __init__(self, open_detector: Callable[[], FaceDetector], threads: int) -> None:
        self._open_detector = open_detector
        self._threads = threads
        self._detector: FaceDetector | None = None
        self._idle: SimpleQueue[FaceDetector] = SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None
        self._seen: list[tuple[NDArray[np.uint8], Future[Box | None]]] = []

    def __enter__(self) -> FaceSearch:
        self._opencv_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forget()
        cv2.setNumThreads(self._opencv_threads)

    def watch(self, place: int, picture: NDArray[np.uint8]) -> None:
        """Begin to look for the face in picture ``place`` of a window: a ``picks.Watcher``."""
        if place == 0:
            self._forget()
        self._open()
        if self._pool is not None:
            before = self._seen[-1] if self._seen else None
            self._seen.append((picture, self._pool.submit(self._detect, picture, before)))

    def crop(self, frames: NDArray[np.uint8], spec: VideoSpec) -> FaceCrops | None:
        """The crops of ``crops.crop_faces``, from all pictures of a window.

        Args:
            frames: (n, H, W, 3) uint8 RGB, the pictures that were watched.
        """
        detector = self._open()
        if self._pool is None:
            return crop_faces(frames, spec, detector)
        return crop_detected(frames, [found.result() for _, found in self._seen], spec)

    def _open(self) -> FaceDetector:
        if self._detector is None:
            self._detector = self._open_detector()
            self._idle.put(self._detector)
            another = open_again(self._detector) if self._threads > 1 else None
            if another is not None:
                self._idle.put(another)
                self._pool = ThreadPoolExecutor(self._threads, "mer-face")
        return self._detector

    def _detect(
        self,
        picture: NDArray[np.uint8],
        before: tuple[NDArray[np.uint8], Future[Box | None]] | None,
    ) -> Box | None:
        # A low frame rate repeats pictures. The earlier one's search began earlier.
        if before is not None and np.array_equal(picture, before[0]):
            return before[1].result()
        detector = self._borrow()
        try:
            return detector.detect(picture)
        finally:
            self._idle.put(detector)

    def _borrow(self) -> FaceDetector:
        try:
            return self._idle.get_nowait()
        except Empty:
            another = open_again(self._open())
            return self._idle.get() if another is None else another

    def _forget(self) -> None:
        for _, found in self._seen:
            found.cancel()
        self._seen.clear()
