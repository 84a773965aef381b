"""What goes wrong while an engine runs is told in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from mer_runtime import Recognizer, registry
from mer_runtime.bundle import load_bundle
from mer_runtime.engines import open_backend
from mer_runtime.errors import BundleError, MerError
from mer_runtime.store import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests prepared isn't taken: it would hide what is in a bundle."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "kept"))


def node(operator: str, *inputs: str, to: str | Sequence[str] = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, [to] if isinstance(to, str) else to, **attributes)


WriteBundle = Callable[..., Path]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux alone")
def test_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ONNX Runtime would end the process while it is imported."""
    monkeypatch.setattr(registry, "CPU_INFO", tmp_path / "proc" / "cpuinfo")
    with pytest.raises(MerError, match=r"without .*cpuinfo: mount /proc here"):
        Recognizer.load("ia-int8")


class TestRun:
    """What goes wrong while it runs."""

    def test_answers_that_are_no_numbers(
        self, write_tiny_bundle: WriteBundle, tiny_model: Any, sample_clip: Path
    ) -> None:
        head = tiny_model.head_graph()
        head.graph.node[-1].output[0] = "raw"
        head.graph.node.append(node("Log", "raw", to="logits"))  # of negative numbers
        recognizer = Recognizer.load(write_tiny_bundle(head=head), prove=False)
        mfcc = np.full(recognizer.spec.audio.shape, -50, np.float32)
        with pytest.raises(BundleError, match="answers with what are no finite numbers"):
            recognizer.infer(mfcc, np.zeros(recognizer.spec.video.shape, np.uint8))
        with pytest.raises(BundleError, match="answers with what are no finite numbers"):
            recognizer.predict(sample_clip)

    def test_features_that_are_no_numbers(
        self, write_tiny_bundle: WriteBundle, tiny_model: Any
    ) -> None:
        encoder = tiny_model.encoder_graph()
        encoder.graph.node[-1].output[0] = "raw"
        encoder.graph.node.append(node("Log", "raw", to="features"))
        recognizer = Recognizer.load(write_tiny_bundle(encoder=encoder), prove=False)
        with pytest.raises(BundleError, match="answers with what are no finite numbers"):
            recognizer.encode(np.full((1, 32, 32, 3), 255, np.uint8))

    def test_error_of_the_engine_is_one_line(
        self, write_tiny_bundle: WriteBundle, tiny_model: Any
    ) -> None:
        encoder = tiny_model.encoder_graph()
        encoder.graph.node[0].input[0] = "wrong"
        encoder.graph.node.insert(0, node("Gather", "faces", "beyond", to="wrong", axis=1))
        beyond = np.array([999, *range(31)])
        encoder.graph.initializer.append(numpy_helper.from_array(beyond, "beyond"))
        backend = open_backend(load_bundle(write_tiny_bundle(encoder=encoder)), 1)
        with pytest.raises(BundleError, match=r"onnxruntime \S+ can't run its graphs: .") as caught:
            backend.encode(np.zeros((1, 32, 32, 3), np.uint8))
        assert "\n" not in str(caught.value)
