"""One recogniser shared: by threads, which take turns, and by forked processes, which can't."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import MerError, Recognizer

pytestmark = pytest.mark.filterwarnings("ignore:the model was trained:mer_runtime.MerWarning")
THREADS = 4


@pytest.fixture(params=["onnxruntime", "openvino"])
def recognizer(request: Any, write_tiny_bundle: Callable[..., Path]) -> Recognizer:
    pytest.importorskip(request.param)
    return Recognizer.load(write_tiny_bundle(), threads=2, backend=request.param)


@pytest.fixture
def clips(make_clip: Callable[..., Path], portrait: NDArray[np.uint8]) -> list[Path]:
    """Of each, another face, and another tone."""
    found = []
    for i in range(THREADS):
        picture = np.ascontiguousarray(np.roll(portrait // (i + 1), 40 * i, axis=1))
        tone = np.sin(2 * np.pi * 200 * (i + 1) * np.arange(48_000) / 48_000)
        options: dict[str, Any] = {"picture": picture, "size": (256, 256), "waveform": tone}
        found.append(make_clip(f"{i}.mp4", fps=8, seconds=1.0, **options))
    return found


def test_threads_get_the_answers_of_one(recognizer: Recognizer, clips: list[Path]) -> None:
    alone = [recognizer.predict(clip) for clip in clips]
    assert len({tuple(one.probabilities.values()) for one in alone}) == THREADS
    before = cv2.getNumThreads()
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(recognizer.predict, clips * 5))
    for one, other in zip(alone * 5, together, strict=True):
        assert one.source == other.source
        assert one.faces_found == other.faces_found
        assert list(one.probabilities.values()) == pytest.approx(
            list(other.probabilities.values()), abs=1e-6
        )
    assert cv2.getNumThreads() == before


def test_threads_of_prepared_inputs(recognizer: Recognizer) -> None:
    generator = np.random.default_rng(0)
    spec = recognizer.spec
    windows = [
        (
            generator.normal(0, 50, spec.audio.shape).astype(np.float32),
            generator.integers(0, 256, spec.video.shape, np.uint8),
        )
        for _ in range(THREADS)
    ]
    alone = [recognizer.infer(*window) for window in windows]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda window: recognizer.infer(*window), windows * 50))
    np.testing.assert_allclose(together, alone * 50, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork itself
def test_a_forked_child_is_told(recognizer: Recognizer, clips: list[Path]) -> None:
    recognizer.predict(clips[0])  # its threads are there now
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_ask, args=(recognizer, clips[0], theirs))
    child.start()
    assert ours.poll(60)
    told = ours.recv()
    child.join(60)
    assert child.exitcode == 0
    assert told.startswith("this process was forked from the one that loaded the bundle")


def _ask(recognizer: Recognizer, clip: Path, pipe: Any) -> None:
    try:
        pipe.send(recognizer.predict(clip).label)
    except MerError as error:
        pipe.send(str(error))


FORKED = """
import os, sys, warnings
from mer_runtime import MerError, Recognizer
warnings.simplefilter("ignore")
_, clip, engine = sys.argv
bundle = "ia-compact-int8"
recognizer = Recognizer.load(bundle, threads=2, backend=engine)
label = recognizer.predict(clip).label
child = os.fork()
if child == 0:
    try:
        recognizer.predict(clip)
    except MerError:
        assert Recognizer.load(bundle, threads=2, backend=engine).predict(clip).label == label
        sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_forked_child_loads_its_own_and_ends(small_clip: Path, engine: str) -> None:
    """Its inherited engine isn't destroyed: that would wait for threads that it lacks."""
    pytest.importorskip(engine)
    command = [sys.executable, "-c", FORKED, str(small_clip), engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "3\n", done.stderr
