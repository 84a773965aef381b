"""The gate lets the reference's own answers pass and nothing that is clearly different."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from mer import Checkpoint, load_checkpoint
from mer_calibration import Range, Ranges
from mer_export import ExportReport, export_bundle, exporter, proof
from mer_export.calibration import Calibration
from mer_export.errors import GateError, NonFiniteError
from mer_export.fallback import MOST_FLOAT_LAYERS
from mer_export.gate import check_golden, check_validation
from mer_export.golden import answer, golden_reference
from mer_export.validation import answer_engine
from mer_runtime import Recognizer
from mer_runtime.bundle import Golden


@pytest.fixture(scope="module")
def checkpoint(small_model: Any) -> Checkpoint:
    return Checkpoint(*small_model)


@pytest.fixture(scope="module")
def golden(checkpoint: Checkpoint) -> Golden:
    return golden_reference(checkpoint, 1e-3)


def infer_with(golden: Golden, error: float, case: int | None = None) -> Any:
    """The reference as an engine whose first logit is off by ``error`` (in one case)."""
    calls = iter(range(1000))

    def infer(mfcc: Any, faces: Any) -> Any:
        number = next(calls)
        logits = golden.reference[number].copy()
        if case is None or number == case:
            logits[0] += error
        return logits

    return infer


class TestGolden:
    def test_exact_engine_passes(self, checkpoint: Checkpoint, golden: Golden) -> None:
        spec = checkpoint.spec

        def infer(mfcc: Any, faces: Any) -> Any:
            return answer(
                checkpoint,
                np.zeros(spec.audio.shape, np.float32) if mfcc is None else mfcc,
                np.zeros(spec.video.shape, np.uint8) if faces is None else faces,
            )

        answered, report = check_golden(golden, infer, 1e-3)
        assert report.max_difference < 1e-5  # the same sums
        assert report.agreement == 100
        assert report.cases == len(golden.cases)
        np.testing.assert_allclose(answered.answers, golden.reference, atol=1e-5)

    def test_one_wrong_answer_fails_and_is_named(self, golden: Golden) -> None:
        wrong = infer_with(golden, 2e-3, golden.cases.index("face missing"))
        with pytest.raises(GateError, match="'face missing'"):
            check_golden(golden, wrong, 1e-3)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_answers_that_are_no_numbers_fail(self, golden: Golden, value: float) -> None:
        with pytest.raises(GateError, match="not finite"):
            check_golden(golden, infer_with(golden, value), 1e-3)


class TestValidation:
    """200 clips of 8 classes, answered rightly by the reference but for the first 20."""

    targets = np.arange(200) % 8

    def reference(self) -> Any:
        logits = np.zeros((200, 8), np.float32)
        logits[np.arange(200), (self.targets + (np.arange(200) < 20)) % 8] = 4
        return logits

    def check(self, answers: Any, max_drop: float = 0.5) -> Any:
        return check_validation(
            "audio", self.reference(), answers, self.targets, temperature=1, max_drop=max_drop
        )

    def flipped(self, clips: range) -> Any:
        return np.concatenate(
            [
                np.roll(row[None], 1, axis=1) if i in clips else row[None]
                for i, row in enumerate(self.reference())
            ]
        )

    def test_same_answers_pass(self) -> None:
        report = self.check(self.reference() * 1.5)
        assert report.prec1 == report.prec1_float == 90
        assert report.comparison.agreement == 100

    def test_loss_of_one_clip_passes_and_of_two_fails(self) -> None:
        assert self.check(self.flipped(range(100, 101))).prec1 == 89.5
        with pytest.raises(
            GateError, match=r"the voice alone.*loses 1\.00 points.*than 0\.50"
        ) as caught:
            self.check(self.flipped(range(100, 102)))
        assert caught.value.shown == "audio"
        assert self.check(self.flipped(range(100, 102)), max_drop=1).prec1 == 89

    def test_one_clip_of_few_may_be_lost(self) -> None:
        """Where a clip is more than the points that are allowed."""
        few, answers = self.reference()[100:160], self.flipped(range(100, 101))[100:160]
        report = check_validation(
            "both", few, answers, self.targets[100:160], temperature=1, max_drop=0.5
        )
        assert report.prec1 == pytest.approx(100 * 59 / 60)

    def test_disagreement_fails_though_nothing_is_lost(self) -> None:
        """Wrong answers that become other wrong ones cost nothing, but it is another model."""
        assert self.check(self.flipped(range(4))).prec1 == 90
        with pytest.raises(
            GateError, match=r"97\.50 % of the validation clips, less than 98"
        ) as caught:
            self.check(self.flipped(range(5)))
        assert caught.value.shown == "audio"

    def test_answers_that_are_no_numbers_fail(self) -> None:
        answers = self.reference()
        answers[7, 3] = np.nan
        with pytest.raises(GateError, match="not finite"):
            self.check(answers)


def test_proof_on_validation_actors(proved: ExportReport) -> None:
    manifest = json.loads((proved.bundle / "manifest.json").read_text())
    gate = manifest["gate"]
    assert gate == proved.gate.to_dict()
    assert gate["kind"] == "validation"
    assert gate["engine"].startswith("onnxruntime")
    assert gate["max_drop"] == 0.5
    assert [one["modality"] for one in gate["validation"]] == ["both", "audio", "video"]
    for one in gate["validation"]:
        assert one["agreement"] >= 98
        assert one["prec1"] >= one["prec1_float"] - 12.5  # one clip of eight
    assert manifest["calibration"]["float_layers"] == list(proved.float_layers) == []
    assert manifest["calibration"]["clips"] == 16
    assert len(manifest["calibration"]["clips_sha256"]) == 64
    assert manifest["temperature"] == proved.temperature != 1
    assert Recognizer.load(proved.bundle).self_test().passed


def sabotage(calibration: Calibration, tensors: Any) -> Calibration:
    """Ranges in which the outputs of some layers are cut off, as the report would say of them.

    It says so of what is shown, as the gate does; over all windows they seem harmless.
    """
    layers, ranges = [], {g: dict(one) for g, one in calibration.ranges.tensors.items()}
    for layer in calibration.layers:
        if layer.tensor in tensors:
            found = ranges[layer.graph][layer.tensor]
            ranges[layer.graph][layer.tensor] = Range(
                found.low / 500, found.high / 500, "minmax", found.low, found.high, 0.9
            )
            heard = 0.0 if layer.graph == "encoder" else 50.0
            shares = {"both": 50.0, "audio": heard, "video": 50.0}
            layers.append(dataclasses.replace(layer, error_share=0.0, shares=shares))
        else:
            halved = {shown: share / 2 for shown, share in layer.shares.items()}
            layers.append(dataclasses.replace(layer, shares=halved))
    return Calibration(
        dataclasses.replace(calibration.ranges, tensors=ranges), tuple(layers), calibration.samples
    )


class TestLayersReturnToFloat:
    def export(
        self,
        broken: Calibration,
        fitted: tuple[Path, Path],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> ExportReport:
        monkeypatch.setattr(exporter, "calibrate", lambda *args, **options: broken)
        return export_bundle(fitted[0], folder, calibration=fitted[1], cpu="x86", timing=False)

    def test_until_the_gate_holds(
        self,
        calibration: Calibration,
        proved: ExportReport,
        fitted: tuple[Path, Path],
        tmp_path: Path,
        graphs_once: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The last convolution's output, which nothing but a mean reads, is cut off."""
        (last,) = (layer for layer in calibration.layers if "conv5" in layer.name)
        broken = sabotage(calibration, {last.tensor})
        report = self.export(broken, fitted, tmp_path / "out", monkeypatch)
        assert report.float_layers == (last.name,)
        assert last.name in report.format()
        assert report.float_size == 2 * 1024 * 464
        assert report.to_dict()["float_layers"] == [last.name]
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["calibration"]["float_layers"] == [last.name]
        assert all(one["agreement"] >= 98 for one in manifest["gate"]["validation"])
        kept = Ranges.read(tmp_path / "out" / "ranges.json")
        assert kept.float_layers == (last.name,), "the next export starts where this one ended"
        np.testing.assert_array_equal(read_shift(report), np.float32(kept.shifts["x86"]))
        assert kept.shifts != calibration.ranges.shifts, "measured again with the layer in float"
        again = export_bundle(
            fitted[0], tmp_path / "again", ranges=tmp_path / "out", cpu="x86", timing=False
        )
        assert again.float_layers == report.float_layers
        assert again.graph_size == report.graph_size
        shutil.rmtree(tmp_path / "again")
        # As 16-bit floats: a byte more a weight of its 1024 x 464.
        grown = report.graph_size - proved.graph_size
        assert 0.9 * 1024 * 464 < grown < 1.3 * 1024 * 464
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]

    def test_the_whole_head_where_no_layer_stands_out(
        self,
        calibration: Calibration,
        fitted: tuple[Path, Path],
        tmp_path: Path,
        graphs_once: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        head = [layer for layer in calibration.layers if layer.graph == "head"]
        broken = sabotage(calibration, {layer.tensor for layer in head})
        even = {"both": 1.0, "audio": 1.0, "video": 1.0}
        layers = tuple(dataclasses.replace(one, shares=even) for one in broken.layers)
        broken = dataclasses.replace(broken, layers=layers)
        report = self.export(broken, fitted, tmp_path / "out", monkeypatch)
        assert set(report.float_layers) == {layer.name for layer in head}
        assert all(one["agreement"] >= 98 for one in report.gate.to_dict()["validation"])

    def test_or_the_export_gives_up(
        self,
        calibration: Calibration,
        fitted: tuple[Path, Path],
        tmp_path: Path,
        graphs_once: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        broken = sabotage(calibration, {layer.tensor for layer in calibration.layers})
        with pytest.raises(GateError) as caught:
            self.export(broken, fitted, tmp_path / "out", monkeypatch)
        assert "mer-train --qat" in str(caught.value)
        (kept,) = re.findall(r"with (\d+) layers in float", str(caught.value))
        assert int(kept) >= MOST_FLOAT_LAYERS
        assert not list(tmp_path.iterdir())

    def test_but_not_for_answers_that_are_no_numbers(
        self,
        calibration: Calibration,
        fitted: tuple[Path, Path],
        tmp_path: Path,
        graphs_once: None,
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
            self.export(calibration, fitted, tmp_path / "out", monkeypatch)
        assert len(attempts) == 1
        assert not list(tmp_path.iterdir())


def read_shift(report: ExportReport) -> NDArray[np.float32]:
    """What the encoder of a bundle adds to its features at the end."""
    graph = onnx.load(report.bundle / "encoder.onnx").graph
    (last,) = (node for node in graph.node if graph.output[0].name in node.output)
    assert last.op_type == "Add"
    (shift,) = (tensor for tensor in graph.initializer if tensor.name == last.input[1])
    return numpy_helper.to_array(shift)


def test_head_in_float_answers_the_voice_as_the_float_model_does(
    calibration: Calibration, proved: ExportReport, fitted: tuple[Path, Path], tmp_path: Path
) -> None:
    report = export_bundle(
        fitted[0], tmp_path / "out", ranges=proved.bundle, float_head=True, cpu="x86", timing=False
    )
    head = {layer.name for layer in calibration.layers if layer.graph == "head"}
    assert set(report.float_layers) == head
    measured = np.float32(calibration.ranges.shifts["x86"])
    for one in (report, proved):
        np.testing.assert_array_equal(read_shift(one), measured)
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


def test_given_ranges_are_proved_on_the_corpus(
    proved: ExportReport,
    fitted: tuple[Path, Path],
    tmp_path: Path,
    graphs_once: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No second calibration: the same integers, and a proof of their own."""
    monkeypatch.setattr(exporter, "calibrate", lambda *args, **options: pytest.fail("calibrates"))
    report = export_bundle(
        fitted[0],
        tmp_path / "out",
        calibration=fitted[1],
        ranges=proved.bundle,
        cpu="x86",
        timing=False,
    )
    assert report.gate.kind == "validation"
    for again, first in zip(report.gate.modalities, proved.gate.modalities, strict=True):
        assert (again.prec1, again.prec5) == (first.prec1, first.prec5)
        assert again.comparison.agreement == first.comparison.agreement
        # PyTorch's float32 sums depend on its threads, of which the first had others.
        assert again.comparison.max_logit_difference == pytest.approx(
            first.comparison.max_logit_difference, abs=1e-4
        )
    for name in ("encoder.onnx", "head.onnx", "ranges.json"):
        assert (report.bundle / name).read_bytes() == (proved.bundle / name).read_bytes()
