"""Which layers an export returns to float, and in which order."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from mer import load_checkpoint
from mer_calibration import Layer, Range, Ranges
from mer_export import ExportOptions, ExportReport, export_bundle, exporter
from mer_export.calibration import Calibration
from mer_export.errors import GateError, NonFiniteError
from mer_export.proof import fallback, proof
from mer_export.proof.fallback import MOST_FLOAT_LAYERS, choose_float_layers
from mer_export.proof.validation import answer_engine
from mer_runtime import Recognizer
from mer_runtime.files import read_graph


def layer(name: str, graph: str, sqnr: float) -> Layer:
    return Layer(
        graph=graph,
        name=name,
        op_type="Conv",
        tensor=f"{name}_out",
        low=0.0,
        high=1.0,
        clipped=0.0,
        sqnr=sqnr,
    )


LAYERS = (
    layer("a", "encoder", 30.0),
    layer("h", "head", 50.0),
    layer("b", "encoder", 20.0),
    layer("i", "head", 25.0),
)


def test_head_goes_first_and_whole() -> None:
    assert choose_float_layers(LAYERS, ()) == ["h", "i"]
    assert choose_float_layers(LAYERS, ["h"]) == ["i"]


def test_then_the_encoders_layers_the_noisiest_first() -> None:
    assert choose_float_layers(LAYERS, ["h", "i"]) == ["b"]
    assert choose_float_layers(LAYERS, ["h", "i", "b"]) == ["a"]
    assert choose_float_layers(LAYERS, ["h", "i", "b", "a"]) == []


def test_layer_with_no_signal_left_is_the_noisiest() -> None:
    lost = (*LAYERS, layer("c", "encoder", float("-inf")), layer("d", "encoder", float("inf")))
    assert choose_float_layers(lost, ["h", "i"]) == ["c"]


def test_encoder_keeps_most_of_its_layers() -> None:
    layers = (
        layer("h", "head", 9.0),
        *(layer(f"e{i}", "encoder", 40.0 - i) for i in range(MOST_FLOAT_LAYERS + 2)),
    )
    kept: list[str] = []
    while chosen := choose_float_layers(layers, kept):
        kept += chosen
    assert len(kept) == 1 + MOST_FLOAT_LAYERS
    assert kept[:3] == ["h", f"e{MOST_FLOAT_LAYERS + 1}", f"e{MOST_FLOAT_LAYERS}"]


def test_layers_that_are_in_no_report_are_left_alone() -> None:
    """Ranges may name layers that are in float from the start."""
    assert choose_float_layers(LAYERS, ["h", "i", "gone"]) == ["b"]
    assert choose_float_layers((), ["gone"]) == []


def cut_off(calibration: Calibration, names: Collection[str]) -> Calibration:
    """Ranges of x86 that cover a 500th of what these layers put out; the report says so."""
    found = calibration.ranges.of("x86")
    ranges = {graph: dict(one) for graph, one in found.tensors.items()}
    layers = []
    for layer in calibration.layers:
        if layer.name in names:  # names of tensors may be those of the other graph too
            one = ranges[layer.graph][layer.tensor]
            ranges[layer.graph][layer.tensor] = Range(
                one.low / 500, one.high / 500, one.seen_low, one.seen_high, 0.9
            )
            layers.append(dataclasses.replace(layer, sqnr=0.0))
        else:
            layers.append(layer)
    broken = calibration.ranges.replace("x86", dataclasses.replace(found, tensors=ranges))
    return dataclasses.replace(calibration, ranges=broken, layers=tuple(layers))


class TestLayersReturnToFloat:
    @pytest.fixture
    def export(
        self, fitted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Calibration], ExportReport]:
        """A function that exports by a calibration to ``out``, which proves it on the corpus."""

        def give(broken: Calibration) -> ExportReport:
            monkeypatch.setattr(exporter, "calibrate", lambda *args, **options: broken)
            checkpoint, cache = fitted
            return export_bundle(
                checkpoint,
                tmp_path / "out",
                ExportOptions(cpu="x86", timing=False),
                calibration=cache,
            )

        return give

    def test_the_head(
        self, calibration: Calibration, export: Callable[[Calibration], ExportReport]
    ) -> None:
        head = [layer for layer in calibration.layers if layer.graph == "head"]
        report = export(cut_off(calibration, {layer.name for layer in head}))
        assert report.float_layers == tuple(layer.name for layer in head)
        assert all(one["agreement"] >= 98 for one in report.gate.to_dict()["validation"])

    def test_and_the_noisiest_layer_of_the_encoder(
        self,
        calibration: Calibration,
        proved: ExportReport,
        fitted: tuple[Path, Path],
        export: Callable[[Calibration], ExportReport],
        tmp_path: Path,
    ) -> None:
        """The last convolution's output, which nothing but a mean reads, is cut off."""
        head = [layer.name for layer in calibration.layers if layer.graph == "head"]
        (last,) = (layer for layer in calibration.layers if "conv5" in layer.name)
        report = export(cut_off(calibration, {last.name}))
        assert report.float_layers == (*head, last.name)
        assert head[0].removesuffix(".weight") in report.format()
        assert report.to_dict()["float_layers"] == [*head, last.name]
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["calibration"]["float_layers"] == [*head, last.name]
        assert all(one["agreement"] >= 98 for one in manifest["gate"]["validation"])
        kept = Ranges.read(tmp_path / "out" / "ranges.json")
        found, before = kept.of("x86"), calibration.ranges.of("x86")
        assert found.float_layers == report.float_layers, "the next export starts there"
        np.testing.assert_array_equal(read_correction(report), np.float32(found.bias_correction))
        assert found.bias_correction != before.bias_correction, (
            "measured again with the layer in float"
        )
        assert found.noise.sqnr > before.noise.sqnr
        again = export_bundle(
            fitted[0],
            tmp_path / "again",
            ExportOptions(ranges=tmp_path / "out", cpu="x86", timing=False),
        )
        assert again.float_layers == report.float_layers
        assert again.graph_size == report.graph_size
        shutil.rmtree(tmp_path / "again")
        # As 16-bit floats: a byte more a weight, of which the layer has 1024 x 464.
        assert report.float_size > 2 * 1024 * 464
        grown = report.graph_size - proved.graph_size
        assert 0.9 * report.float_size / 2 < grown < 1.3 * report.float_size / 2
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]

    def test_or_the_export_gives_up(
        self,
        calibration: Calibration,
        export: Callable[[Calibration], ExportReport],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(fallback, "MOST_FLOAT_LAYERS", 2)
        head = sum(layer.graph == "head" for layer in calibration.layers)
        with pytest.raises(GateError) as caught:
            export(cut_off(calibration, {layer.name for layer in calibration.layers}))
        for word in ("--seed", "--precision fp16"):
            assert word in str(caught.value)
        (kept,) = re.findall(r"with (\d+) layers in float", str(caught.value))
        assert int(kept) == head + 2
        assert not list(tmp_path.iterdir())

    def test_but_not_for_answers_that_are_no_numbers(
        self,
        calibration: Calibration,
        export: Callable[[Calibration], ExportReport],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A layer in float doesn't mend an engine that is broken, and each takes a minute."""
        attempts = []

        def answer(*args: Any) -> Any:
            attempts.append(args)
            logits = answer_engine(*args)
            logits["audio"][0, 0] = np.inf
            return logits

        monkeypatch.setattr(proof, "answer_engine", answer)
        with pytest.raises(NonFiniteError, match=r"fed with the voice alone.*not finite"):
            export(calibration)
        assert len(attempts) == 1
        assert not list(tmp_path.iterdir())


def read_correction(report: ExportReport) -> NDArray[np.float32]:
    """What the encoder of a bundle adds to its features at the end."""
    graph = onnx.load_from_string(read_graph(report.bundle / "encoder.onnx.gz")).graph
    (last,) = (node for node in graph.node if graph.output[0].name in node.output)
    assert last.op_type == "Add"
    (correction,) = (tensor for tensor in graph.initializer if tensor.name == last.input[1])
    return numpy_helper.to_array(correction)


def test_head_in_float_answers_the_voice_as_the_float_model_does(
    calibration: Calibration,
    proved: ExportReport,
    fitted: tuple[Path, Path],
    tmp_path: Path,
    answer: Any,
) -> None:
    report = export_bundle(
        fitted[0],
        tmp_path / "out",
        ExportOptions(ranges=proved.bundle, float_head=True, cpu="x86", timing=False),
    )
    head = {layer.name for layer in calibration.layers if layer.graph == "head"}
    assert set(report.float_layers) == head
    measured = np.float32(calibration.ranges.of("x86").bias_correction)
    for one in (report, proved):
        np.testing.assert_array_equal(read_correction(one), measured)
    assert measured.any()
    checkpoint = load_checkpoint(fitted[0])
    spec = checkpoint.spec
    mfcc = np.random.default_rng(0).normal(0, 20, spec.audio.shape).astype(np.float32)
    expected = answer(checkpoint, mfcc, np.zeros(spec.video.shape, np.uint8))
    given = Recognizer.load(report.bundle).infer(mfcc, None)
    off = np.abs(given - expected).max()
    assert off < 0.1 * np.abs(Recognizer.load(proved.bundle).infer(mfcc, None) - expected).max()
    # Weights are float16, rounded by 2^-11 of their size at most; errors don't add up to more.
    assert off < 2**-10 * np.abs(expected).max()
