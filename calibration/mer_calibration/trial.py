"""What quantisation does to the answer: logits of candidates against those of the float graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from mer_calibration.errors import CalibrationError
from mer_calibration.observation import open_session

#: What a window shows: both modalities, the voice alone, the face alone.
Shown = Literal["both", "audio", "video"]
SHOWN: tuple[Shown, ...] = get_args(Shown)


@dataclass(frozen=True)
class Window:
    """One input of the two graphs.

    Attributes:
        mfcc: (n_mfcc, T) float32; zeros where the voice is missing.
        crops: (k, S, S, 3) uint8, k at least 1; the window's frames show each of them equally
            long. Few crops make a trial quick, and neighbouring frames look alike anyway. None:
            the face is missing, and the head gets the float graph's features of a black crop.
    """

    mfcc: NDArray[np.float32]
    crops: NDArray[np.uint8] | None

    @property
    def shown(self) -> Shown:
        """What isn't missing."""
        if self.crops is None:
            return "audio"
        return "both" if self.mfcc.any() else "video"


class Trial:
    """Float encoder and head, and the windows on which candidates are compared with them.

    Args:
        rounded: the graphs that candidates are made from, encoder and head, where their weights
            aren't those of the float graphs any more.
        pixel_means: what candidates are corrected by (``quantise_graph``).

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
        rounded: tuple[ModelProto, ModelProto] | None = None,
        pixel_means: Sequence[float] = (),
        threads: int | None = None,
    ) -> None:
        if not windows:
            raise CalibrationError("there is no window to compare answers on: give at least one")
        self.windows, self.threads, self.pixel_means = windows, threads, pixel_means
        self.encoder, self.head = encoder, head
        self.rounded = rounded or (encoder, head)
        self._no_face = self._encode_black()
        self._features = self._encode(encoder)
        self.logits = self._classify(head, self._features)

    def answer(self, encoder: ModelProto | None, head: ModelProto | None) -> NDArray[np.float32]:
        """Logits (windows, classes) of a pair of candidates; None stands for the float graph.

        Raises:
            CalibrationError: ONNX Runtime can't load a graph.
        """
        features = self._features if encoder is None else self._encode(encoder)
        return self._classify(self.head if head is None else head, features)

    def error(self, encoder: ModelProto | None, head: ModelProto | None) -> float:
        """Mean squared difference of logits from the float graphs', over all windows."""
        return float(self.errors(encoder, head).mean())

    def errors(self, encoder: ModelProto | None, head: ModelProto | None) -> NDArray[np.float64]:
        """The same for each window (n,).

        What all classes of a window have in common changes no answer and doesn't count.
        """
        difference = self.answer(encoder, head).astype(np.float64) - self.logits
        difference -= difference.mean(axis=1, keepdims=True)
        return np.asarray(np.square(difference).mean(axis=1))

    def _encode(self, encoder: ModelProto) -> list[NDArray[np.float32]]:
        session = open_session(encoder, self.threads)
        known: dict[int, NDArray[np.float32]] = {}  # windows may share their crops
        features = []
        for number, window in enumerate(self.windows, start=1):
            if window.crops is None:
                features.append(self._no_face)
                continue
            if id(window.crops) not in known:
                known[id(window.crops)] = _run(session, {"faces": window.crops}, number)
            features.append(known[id(window.crops)])
        return features

    def _encode_black(self) -> NDArray[np.float32]:
        """Features (1, F): what a bundle carries for a missing face, whatever its precision."""
        session = open_session(self.encoder, self.threads)
        crop = session.get_inputs()[0].shape[1:]
        return np.asarray(session.run(None, {"faces": np.zeros((1, *crop), np.uint8)})[0])

    def _classify(
        self, head: ModelProto, features: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        session = open_session(head, self.threads)
        shapes = {node.name: node.shape for node in session.get_inputs()}
        frames = int(shapes["features"][1])
        logits = []
        for number, (window, crops) in enumerate(zip(self.windows, features, strict=True), start=1):
            shown = crops[np.arange(frames) * len(crops) // frames]
            feed = {"mfcc": window.mfcc[None], "features": shown[None]}
            logits.append(_run(session, feed, number)[0])
        return np.stack(logits)


def _run(session: Any, feed: dict[str, NDArray[Any]], number: int) -> NDArray[np.float32]:
    try:
        return np.asarray(session.run(None, feed)[0], np.float32)
    except Exception as error:  # its exceptions share no base class of its own
        reason = " ".join(str(error).split())
        raise CalibrationError(f"window {number} can't be run: {reason}") from error
