"""Recognisers for streams, on one thread and with the face detector that ships."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stream_clips import Picture

from mer_runtime import Recognizer
from mer_runtime.inputs.face import DETECTOR_VARIABLE


@pytest.fixture(scope="module", autouse=True)
def _no_detector_variable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DETECTOR_VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    """The shipped int8 bundle: 15 crops of 224 pixels, slots of 0.24 s."""
    return Recognizer.load("ia-int8", threads=1)


@pytest.fixture
def tiny(write_tiny_bundle: Callable[..., Path]) -> Recognizer:
    """A quick bundle: 12 crops of 32 pixels, slots of 0.3 s, a hop of 0.6 s."""
    return Recognizer.load(write_tiny_bundle(), threads=1)


@pytest.fixture(scope="module")
def head(portrait: Picture) -> Picture:
    """Head and shoulders, (240, 240, 3)."""
    return np.ascontiguousarray(portrait[:240, 100:340])
