"""Inference engines behind one small protocol; each is imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mer_runtime.bundle import FACES, FEATURES, LOGITS, MFCC, NO_FACE_FILE, Bundle
from mer_runtime.engines.cores import usable_cores as usable_cores
from mer_runtime.engines.graph_check import check_graph
from mer_runtime.errors import BundleError, MerError
from mer_runtime.registry import ENGINES, list_engines, list_targets

#: A tensor's shape as an engine tells it; None where it is free.
Shape = tuple[int | None, ...]


class Backend(Protocol):
    """A bundle's two graphs, loaded into an engine."""

    @property
    def name(self) -> str:
        """Engine and version, such as ``onnxruntime 1.23.2``."""
        ...

    @property
    def gpu(self) -> str | None:
        """Name and compute capability of the GPU, such as ``Orin sm87``; None on the CPU."""
        ...

    @property
    def feature_width(self) -> int:
        """F: how many numbers describe one crop."""
        ...

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops (n, S, S, 3), n from 1 to the spec's frames, to frame features (n, F)."""
        ...

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Raw MFCCs (n_mfcc, T) and a window's features (frames, F) to logits (classes,)."""
        ...


def open_backend(bundle: Bundle, threads: int | None = None) -> Backend:
    """Load a bundle's graphs into the engine that they were made for.

    Args:
        threads: how many to compute with; by default, as many as this process may use.

    Raises:
        BundleError: there is no such target, or the engine refuses a graph.
        MissingExtraError: the engine isn't installed.
    """
    engines = list_engines(bundle.target)
    if not engines:
        known = ", ".join(list_targets())
        raise BundleError(bundle.path, f"there is no engine for {bundle.target}, only for {known}")
    backend: Backend = ENGINES[engines[0]].load()(bundle, threads or usable_cores())
    return _Told(bundle, backend)


class _Told:
    """A backend whose errors at work are told in one line, as those of loading are."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self._bundle, self._backend = bundle, backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def gpu(self) -> str | None:
        return self._backend.gpu

    @property
    def feature_width(self) -> int:
        return self._backend.feature_width

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run(lambda: self._backend.encode(faces), (len(faces), self.feature_width))

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        classes = len(self._bundle.spec.labels)
        return self._run(lambda: self._backend.classify(mfcc, features), (classes,))

    def _run(
        self, work: Callable[[], NDArray[np.float32]], shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        try:
            answer = work()
        except MerError:
            raise
        except Exception as error:  # engines' exceptions share no base class
            reason = " ".join(str(error).split())
            raise BundleError(
                self._bundle.path, f"{self.name} can't run its graphs: {reason}"
            ) from error
        if answer.shape != shape:
            raise BundleError(
                self._bundle.path,
                f"{self.name} answers with {answer.shape} numbers, not {shape}: "
                "export the bundle again",
            )
        return answer


def read_onnx(bundle: Bundle, file: Path) -> bytes:
    """Content of an ONNX graph of a bundle, after its hash and what it would do were checked.

    Raises:
        BundleError: it was changed.
        OSError: it can't be unpacked.
        ValueError: it isn't one that ``mer-export`` can have written. ``graph_error`` tells both.
    """
    content = bundle.read_graph(file)
    try:
        check_graph(content, bundle.spec.video.frames)
    except ValueError as error:
        raise ValueError(f"{file.name} isn't run: {error}") from error
    return content


def check_shapes(bundle: Bundle, encoder: Mapping[str, Shape], head: Mapping[str, Shape]) -> int:
    """Compare the inputs and outputs that an engine found in the graphs with the spec.

    Args:
        encoder, head: by name, the shape of every input and output of the graph.

    Returns:
        F, the width of frame features, as the head has it.

    Raises:
        BundleError: a graph's inputs or outputs aren't the format's, or not the spec's.
    """
    spec = bundle.spec
    frames, *crop = spec.video.shape
    width = head.get(FEATURES, (None,))[-1]
    expected: dict[str, dict[str, Shape]] = {
        "encoder": {FACES: (None, *crop), FEATURES: (None, width)},
        "head": {
            MFCC: (1, *spec.audio.shape),
            FEATURES: (1, frames, width),
            LOGITS: (1, len(spec.labels)),
        },
    }
    for graph, found in (("encoder", encoder), ("head", head)):
        if dict(found) != expected[graph]:
            raise BundleError(
                bundle.path,
                f"its {graph} has {_describe(found)}, but the spec says "
                f"{_describe(expected[graph])}: export the bundle again",
            )
    if width is None:
        raise BundleError(bundle.path, f"its head leaves the width of {FEATURES} open")
    return width


def read_no_face(bundle: Bundle, width: int) -> NDArray[np.float32]:
    """The features (F,) that stand for a missing face; ``width`` is F, as the head has it.

    Raises:
        BundleError: they can't be read, or aren't so many.
    """
    features = bundle.no_face()
    if features.shape != (width,):
        raise BundleError(
            bundle.path,
            f"its {NO_FACE_FILE} has {features.size} numbers, but its head reads {width}: "
            "export the bundle again",
        )
    return features


def graph_error(bundle: Bundle, engine: str, error: Exception) -> BundleError:
    """The error for a graph that an engine can't load, in one line."""
    reason = " ".join(str(error).split())
    return BundleError(bundle.path, f"{engine} can't load its graphs: {reason}")


def _describe(shapes: Mapping[str, Shape]) -> str:
    sides = {
        name: " x ".join("?" if size is None else str(size) for size in shape)
        for name, shape in shapes.items()
    }
    return ", ".join(f"{name} ({shape})" for name, shape in sides.items()) or "nothing"
