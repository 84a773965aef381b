"""What rounding adds to the answers: those of quantised graphs against the float graphs'.

Measured on the calibration's clips, it says what to expect on others: a gate need not take a round
number for its tolerance, and an answer can tell whether rounding may have decided it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from mer_calibration.errors import CalibrationError
from mer_calibration.measure.observation import open_session
from mer_runtime.feeds import MODALITIES, Modality

#: What a window shows: both modalities, the voice alone, the face alone.

#: Signal to noise in dB that counts as none: weights stored as float16 leave more.
NOISELESS = 60.0


@dataclass(frozen=True)
class Window:
    """One clip as the two graphs read it.

    Attributes:
        mfcc: (n_mfcc, T) float32; None where the voice is missing, which is fed as zeros.
        crops: (frames, S, S, 3) uint8; None where the face is missing: the head then reads the
            float graph's features of a black crop.

    Raises:
        CalibrationError: both are None.
    """

    mfcc: NDArray[np.float32] | None
    crops: NDArray[np.uint8] | None

    def __post_init__(self) -> None:
        if self.mfcc is None and self.crops is None:
            raise CalibrationError("a window has neither a voice nor a face: give at least one")

    def feeds(self) -> tuple[Modality, ...]:
        """What can be shown of it: whole, and each of its modalities alone."""
        if self.crops is None:
            return ("audio",)
        return ("video",) if self.mfcc is None else MODALITIES


@dataclass(frozen=True)
class LogitNoise:
    """What is added to logits where one feed is shown.

    What all classes of a window have in common changes no answer and isn't counted.

    Attributes:
        rms: root mean square over windows and classes.
        largest: the largest magnitude.
        margin: root mean square of what is added to the difference of the two best classes.
        windows: how many were compared.
    """

    rms: float
    largest: float
    margin: float
    windows: int


@dataclass(frozen=True)
class Noise:
    """What quantised graphs add.

    Attributes:
        sqnr: signal to quantisation noise of the frame features, dB, at most ``NOISELESS``.
        logits: by what was shown.
    """

    sqnr: float
    logits: Mapping[Modality, LogitNoise]


def compare_logits(answers: NDArray[np.floating], exact: NDArray[np.floating]) -> LogitNoise:
    """Noise of logits (windows, classes) against those of the float graphs.

    Raises:
        CalibrationError: there is none, or one isn't finite.
    """
    added = answers.astype(np.float64) - exact
    if not added.size or not np.isfinite(added).all():
        raise CalibrationError("there are no finite answers to compare")
    added -= added.mean(axis=1, keepdims=True)
    best = np.argsort(exact, axis=1)[:, -2:]
    margins = np.diff(np.take_along_axis(added, best, axis=1), axis=1)
    return LogitNoise(
        rms=float(np.sqrt(np.square(added).mean())),
        largest=float(np.abs(added).max()),
        margin=float(np.sqrt(np.square(margins).mean())),
        windows=len(added),
    )


def decibels(signal: float, noise: float) -> float:
    """10 log10 of a ratio of powers; inf where there is no noise, -inf where there is no signal."""
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


class FloatAnswers:
    """What the float graphs say to some windows: what quantised ones are compared with.

    Raises:
        CalibrationError: there is no window, one doesn't fit the graphs, or ONNX Runtime can't
            load a graph.
    """

    def __init__(
        self,
        encoder: ModelProto,
        head: ModelProto,
        windows: Sequence[Window],
        *,
        threads: int | None = None,
    ) -> None:
        if not windows:
            raise CalibrationError("there is no window to compare answers on: give at least one")
        self.windows, self.threads = windows, threads
        self.head = head
        session = open_session(encoder, threads)
        crop = session.get_inputs()[0].shape[1:]
        self._no_face = _run(session, {"faces": np.zeros((1, *crop), np.uint8)}, 0)
        self._features = list(self._encode(encoder, lambda: None))
        self._logits = self._classify(head, self._features)

    def measure(
        self,
        encoder: ModelProto | None,
        head: ModelProto | None,
        step: Callable[[], None] = lambda: None,
    ) -> Noise:
        """Compare quantised graphs with the float ones; None stands for the float graph.

        Args:
            step: called after each window.

        Raises:
            CalibrationError: ONNX Runtime can't load a graph, an answer isn't finite, or all the
                frame features are 0.
        """
        features = self._features if encoder is None else list(self._encode(encoder, step))
        logits = self._classify(head or self.head, features)
        signal = noise = 0.0
        for exact, given in zip(self._features, features, strict=True):
            if exact is not None and given is not None:
                signal += float(np.square(exact, dtype=np.float64).sum())
                noise += float(np.square(exact - given, dtype=np.float64).sum())
        if noise and not signal:
            raise CalibrationError("all the frame features are 0: the encoder answers nothing")
        return Noise(
            sqnr=min(decibels(signal, noise), NOISELESS),
            logits={
                shown: compare_logits(np.stack(logits[shown]), np.stack(exact))
                for shown, exact in self._logits.items()
            },
        )

    def _encode(
        self, encoder: ModelProto, step: Callable[[], None]
    ) -> Iterator[NDArray[np.float32] | None]:
        session = open_session(encoder, self.threads)
        for number, window in enumerate(self.windows, start=1):
            crops = window.crops
            yield None if crops is None else _run(session, {"faces": crops}, number)
            step()

    def _classify(
        self, head: ModelProto, features: Sequence[NDArray[np.float32] | None]
    ) -> dict[Modality, list[NDArray[np.float32]]]:
        session = open_session(head, self.threads)
        shapes = {node.name: node.shape for node in session.get_inputs()}
        no_face = np.tile(self._no_face, (int(shapes["features"][1]), 1))
        silence = np.zeros(shapes["mfcc"][1:], np.float32)
        logits: dict[Modality, list[NDArray[np.float32]]] = {}
        for number, (window, seen) in enumerate(zip(self.windows, features, strict=True), start=1):
            for shown in window.feeds():
                voice = silence if shown == "video" or window.mfcc is None else window.mfcc
                face = no_face if shown == "audio" or seen is None else seen
                feed = {"mfcc": voice[None], "features": face[None]}
                logits.setdefault(shown, []).append(_run(session, feed, number)[0])
        return logits


def _run(session: Any, feed: dict[str, NDArray[Any]], number: int) -> NDArray[np.float32]:
    try:
        return np.asarray(session.run(None, feed)[0], np.float32)
    except Exception as error:  # its exceptions share no base class of its own
        reason = " ".join(str(error).split())
        raise CalibrationError(f"window {number} can't be run: {reason}") from error
