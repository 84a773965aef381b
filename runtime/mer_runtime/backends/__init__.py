"""Inference engines behind one small protocol; each is imported only when it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mer_runtime.bundle import Bundle
from mer_runtime.errors import BundleError


class Backend(Protocol):
    """A loaded engine."""

    @property
    def name(self) -> str:
        """Engine and version, such as ``onnxruntime 1.23.2``."""
        ...

    def run(self, mfcc: NDArray[np.float32], faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw MFCCs (n_mfcc, T) and crops (frames, S, S, 3) to logits (classes,)."""
        ...


def open_backend(bundle: Bundle, threads: int | None = None) -> Backend:
    """Load a bundle's graph into the engine it was made for.

    Args:
        threads: how many to compute with; by default, as many as this process may use.

    Raises:
        BundleError: the engine refuses the graph, or this version has none for the target.
        MissingExtraError: the engine isn't installed.
    """
    if bundle.target == "onnx":
        from mer_runtime.backends.onnx import OnnxBackend

        return OnnxBackend(bundle, threads or usable_cores())
    if bundle.target == "openvino":
        from mer_runtime.backends.openvino import OpenvinoBackend

        return OpenvinoBackend(bundle, threads or usable_cores())
    raise BundleError(bundle.path, f"this version has no engine for target {bundle.target}")


def check_inputs(bundle: Bundle, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the input shapes that an engine found in a graph with the spec's.

    Raises:
        BundleError: they differ.
    """
    expected = {"mfcc": (1, *bundle.spec.audio.shape), "faces": (1, *bundle.spec.video.shape)}
    if shapes != expected:
        raise BundleError(bundle.path, f"the graph takes {shapes}, its spec says {expected}")


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
