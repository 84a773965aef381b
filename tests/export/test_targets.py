"""Every pair of target and precision, from a trained checkpoint to its own engine."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mer import Checkpoint, load_checkpoint
from mer_calibration import Ranges
from mer_export import ExportOptions, ExportReport, export_bundle
from mer_export.network.graphs import Graphs
from mer_export.proof.limits import find_limits
from mer_export.targets import TARGETS, Job, find_dialect, host_cpu
from mer_export.targets.openvino import write_openvino
from mer_runtime import BundleError, MissingExtraError, Recognizer
from mer_runtime.bundle import Precision, load_bundle
from mer_runtime.engines import open_backend
from mer_runtime.engines.builder import EngineError, build_engine, encoder_profile
from mer_runtime.engines.cuda import Gpu
from mer_runtime.files import read_graph
from mer_runtime.proof.choice import choose_backend

PAIRS = [(target, precision) for target in TARGETS for precision in get_args(Precision)]
NAMES = ("encoder", "head")


def has_gpu() -> bool:
    try:
        Gpu()
    except (MissingExtraError, EngineError):
        return False
    return True


Export = Callable[..., ExportReport]


@pytest.fixture(scope="module")
def export(
    fitted: tuple[Path, Path], proved: ExportReport, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """``export(target, precision)``: ``fitted`` with the ranges of ``proved``; each made once."""
    made: dict[Any, ExportReport] = {}

    def give(target: Any, precision: Any) -> ExportReport:
        if target == "tensorrt-rtx":
            pytest.importorskip("tensorrt_rtx")
        if (target, precision) not in made:
            made[target, precision] = export_bundle(
                fitted[0],
                tmp_path_factory.mktemp("export") / "out",
                ExportOptions(
                    target=target,
                    precision=precision,
                    ranges=proved.bundle if precision == "int8" else None,
                    timing=False,
                ),
            )
        return made[target, precision]

    return give


@pytest.mark.parametrize(("target", "precision"), PAIRS, ids=map(" ".join, PAIRS))
def test_every_pair(
    export: Export,
    target: Any,
    precision: Any,
    fitted: tuple[Path, Path],
    calibration: Any,
    answer: Any,
) -> None:
    report = export(target, precision)
    bundle = load_bundle(report.bundle)
    assert (bundle.target, bundle.precision) == (target, precision)
    assert report.gate.kind == "golden"
    dialect = find_dialect(target, host_cpu())
    noise = calibration.ranges.of(dialect).noise if precision == "int8" else None
    limits = find_limits(precision, target, noise)
    assert report.gate.golden.max_difference <= report.gate.golden.tolerance
    assert report.gate.golden.tolerance == max(limits.golden.values())
    golden = bundle.golden()
    assert golden.tolerance == limits.device
    assert golden.temperatures == bundle.temperatures
    assert (bundle.manifest["saturation"] is not None) == (precision == "int8")
    checkpoint = load_checkpoint(fitted[0])
    mfcc, faces = golden.case(0)
    assert mfcc is not None
    assert faces is not None
    # PyTorch's own sums, made again.
    np.testing.assert_allclose(golden.reference[0], answer(checkpoint, mfcc, faces), atol=1e-4)
    assert (golden.answers != golden.reference).any(), "the reference's answers were copied"
    packages = set(TARGETS[target].packages)
    assert packages <= set(bundle.manifest["versions"])
    assert (bundle.path / "ranges.json").is_file() == (precision == "int8")
    assert (bundle.manifest["calibration"] is not None) == (precision == "int8")
    if target in ("onnx", "openvino") or has_gpu():
        recognizer = Recognizer.load(bundle.path, threads=1)
        assert recognizer.backend.name in report.gate.engine
        test = recognizer.self_test()
        assert test.passed
        # The same engine and graphs; another number of threads may sum in another order. In float16
        # that rounds anew: two answers that far from float32's may be twice as far from each other.
        rounding = np.abs(golden.answers - golden.reference).max() if precision == "fp16" else 0.0
        assert test.max_difference <= max(golden.tolerance / 10, 2 * rounding)
        first = recognizer.infer(mfcc, None)
        kept = first.copy()
        recognizer.infer(None, faces)
        np.testing.assert_array_equal(first, kept, "an answer was overwritten by the next one")
    else:
        assert f"({target} was not run)" in report.gate.engine
        assert "onnxruntime" in report.gate.engine


def test_engine_settings(export: Export) -> None:
    def settings(target: Any, precision: Any) -> Any:
        return load_bundle(export(target, precision).bundle).engine

    assert settings("onnx", "fp32") == {}
    assert settings("onnx", "int8")["dialect"] in ("x86", "arm")
    assert settings("openvino", "fp32") == {"inference_precision": "f32"}
    assert settings("openvino", "fp16") == {"inference_precision": "f16"}
    assert settings("openvino", "int8") == {"inference_precision": "f32"}
    assert settings("tensorrt", "int8") == {}


def load(path: Path) -> onnx.GraphProto:
    return onnx.load_from_string(read_graph(path)).graph


def count(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in load(path).node)


def float_types(path: Path) -> set[int]:
    kinds = {TensorProto.FLOAT, TensorProto.FLOAT16}
    return {t.data_type for t in load(path).initializer} & kinds


class TestTensorrt:
    """What can't be run here is read: by us, and by TensorRT-RTX's builder."""

    def test_int8_is_strongly_typed(self, export: Export) -> None:
        bundle = load_bundle(export("tensorrt", "int8").bundle)
        for path in (bundle.encoder, bundle.head):
            assert float_types(path) == {TensorProto.FLOAT16}
            assert count(path)["QuantizeLinear"] > 5
            for tensor in load(path).initializer:
                assert tensor.data_type != TensorProto.UINT8, "not of the tensorrt dialect"
        assert count(bundle.encoder)["QuantizeLinear"] > 50

    @pytest.mark.parametrize("precision", get_args(Precision))
    def test_graphs_are_packed(self, export: Export, precision: Any, tmp_path: Path) -> None:
        """What gunzip makes of them is ONNX, as other tools read it."""
        report = export("tensorrt", precision)
        bundle = load_bundle(report.bundle)
        assert bundle.manifest["graphs"] == {name: f"{name}.onnx.gz" for name in NAMES}
        assert not list(report.bundle.glob("*.onnx"))
        size = 0
        for path in (bundle.encoder, bundle.head):
            assert path.name in bundle.manifest["files"]
            size += path.stat().st_size
            plain = tmp_path / path.stem
            plain.write_bytes(gzip.decompress(path.read_bytes()))
            onnx.checker.check_model(plain, full_check=True)
            # Weights alone lose a twentieth, and int8's zeros and scales more.
            assert path.stat().st_size < 0.97 * plain.stat().st_size
        assert report.graph_size == size

    @pytest.mark.parametrize(
        ("engine", "precision"),
        # Int8 not: on 16-bit floats ONNX Runtime's QuantizeLinear cuts off where it must round.
        [
            ("onnxruntime", "fp32"),
            ("onnxruntime", "fp16"),
            ("openvino", "fp32"),
            ("openvino", "fp16"),
            ("openvino", "int8"),
        ],
    )
    def test_other_engines_answer_from_them(
        self, export: Export, engine: Any, precision: Any
    ) -> None:
        """``mer-run --backend`` on a device whose GPU is busy, or to compare."""
        pytest.importorskip(engine)
        bundle = load_bundle(export("tensorrt", precision).bundle)
        choice = choose_backend(bundle, engine, 1)
        assert Recognizer(bundle, choice.backend).self_test().passed

    def test_fp16_has_no_other_floats(self, export: Export) -> None:
        bundle = load_bundle(export("tensorrt", "fp16").bundle)
        for path in (bundle.encoder, bundle.head):
            assert float_types(path) == {TensorProto.FLOAT16}
            assert not count(path)["QuantizeLinear"]

    @pytest.mark.parametrize("precision", get_args(Precision))
    def test_builder_takes_the_graphs(self, export: Export, precision: Any) -> None:
        """The RTX builder, in place of TensorRT's: both parse the same networks."""
        trt = pytest.importorskip("tensorrt_rtx")
        bundle = load_bundle(export("tensorrt", precision).bundle)
        profile = encoder_profile(bundle.spec)
        assert len(build_engine(trt, bundle.encoder, profile=profile)) > 10_000
        assert len(build_engine(trt, bundle.head)) > 10_000

    @pytest.mark.parametrize("precision", get_args(Precision))
    def test_rtx_engines_are_in_the_bundle(self, export: Export, precision: Any) -> None:
        report = export("tensorrt-rtx", precision)
        trt = pytest.importorskip("tensorrt_rtx")
        bundle = load_bundle(report.bundle)
        assert bundle.engine["version"] == trt.__version__
        assert bundle.engine["files"] == {name: f"{name}.engine" for name in NAMES}
        for name in bundle.engine["files"].values():
            assert name in bundle.manifest["files"]
            assert (bundle.path / name).stat().st_size > 10_000
        # Built ahead, they are counted by themselves.
        assert report.graph_size == export("tensorrt", precision).graph_size
        assert report.engine_size == sum(f.stat().st_size for f in bundle.path.glob("*.engine"))
        assert f" MB, engines {report.engine_size / 1e6:.1f} MB, bundle " in report.format()

    @pytest.mark.skipif(has_gpu(), reason="here an engine answers")
    def test_without_a_gpu_one_line_says_so(self, export: Export) -> None:
        bundle = load_bundle(export("tensorrt", "int8").bundle)
        with pytest.raises((EngineError, MissingExtraError)):
            open_backend(bundle)


class TestFloatLayers:
    """Layers that an int8 export leaves in float take two bytes a weight, and are counted."""

    LAYER = "encoder.conv5.0.weight"

    @pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
    def test_stored_as_float16(
        self,
        target: Any,
        export: Export,
        fitted: tuple[Path, Path],
        proved: ExportReport,
        tmp_path: Path,
    ) -> None:
        if target == "openvino":
            pytest.importorskip("openvino")
        ranges = Ranges.read(proved.bundle / "ranges.json")
        dialect = find_dialect(target, host_cpu())
        kept = dataclasses.replace(ranges.of(dialect), float_layers=(self.LAYER,))
        ranges.replace(dialect, kept).write(tmp_path / "ranges.json")
        report = export_bundle(
            fitted[0],
            tmp_path / "out",
            ExportOptions(target=target, ranges=tmp_path / "ranges.json", timing=False),
        )
        whole = export(target, "int8")
        assert report.float_layers == (self.LAYER,)
        weights = 1024 * 464
        # gzip saves an eighth or so of 16-bit floats that were drawn from a bell curve
        assert 1.6 * weights < report.float_size < 2 * weights
        # Without them, what is left is the whole graph but for the layer's integers, ...
        quantised = report.graph_size - report.float_size
        assert whole.graph_size - 1.1 * weights < quantised < whole.graph_size - 0.7 * weights
        # ... and it is told apart.
        told = report.to_dict()
        assert (told["graph_size"], told["float_size"]) == (report.graph_size, report.float_size)
        both = f"{report.graph_size / 1e6:.2f} MB, {report.float_size / 1e6:.2f} MB"
        assert f"graphs {both} of it weights of 1 layer in float (fp16), bundle " in report.format()

    def test_none(self, export: Export) -> None:
        report = export("tensorrt", "int8")
        assert report.float_size == report.to_dict()["float_size"] == 0
        assert f"graphs {report.graph_size / 1e6:.2f} MB, bundle " in report.format()

    def test_openvino_keeps_what_float16_can_not_hold(
        self, exported: tuple[Checkpoint, Graphs], tmp_path: Path
    ) -> None:
        openvino = pytest.importorskip("openvino")
        checkpoint, floats = exported
        huge = Graphs(*(onnx.ModelProto() for _ in NAMES))
        for (_, model), copy in zip(floats.items(), (huge.encoder, huge.head), strict=True):
            copy.CopyFrom(model)
        (weight,) = (t for t in huge.encoder.graph.initializer if t.name == self.LAYER)
        value = numpy_helper.to_array(weight) * np.float32(1e6)
        weight.CopyFrom(numpy_helper.from_array(value, self.LAYER))
        # As the int8 graph has the layer: in float.
        job = Job("int8", checkpoint.spec, floats, lambda _: huge, "openvino", (self.LAYER,))
        written = write_openvino(job, tmp_path)
        content = [read_graph(tmp_path / f"encoder.{part}.gz") for part in ("xml", "bin")]
        stored = [
            operation.data
            for operation in openvino.Core().read_model(*content).get_ordered_ops()
            if operation.get_type_name() == "Constant" and operation.shape == value.shape
        ]
        assert any(np.array_equal(data, value) for data in stored)
        assert written.float_size > 2 * value.size


class TestSameBytes:
    """What goes in decides what comes out."""

    @pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt"])
    def test_int8(
        self,
        export: Export,
        target: Any,
        fitted: tuple[Path, Path],
        proved: ExportReport,
        tmp_path: Path,
    ) -> None:
        first = export(target, "int8").bundle
        again = export_bundle(
            fitted[0],
            tmp_path / "again",
            ExportOptions(target=target, ranges=proved.bundle, timing=False),
        ).bundle
        files = sorted(file.name for file in first.iterdir())
        assert files == sorted(file.name for file in again.iterdir())
        for name in files:
            assert (first / name).read_bytes() == (again / name).read_bytes(), name

    def test_with_and_without_the_corpus(self, export: Export, proved: ExportReport) -> None:
        """The ranges are all that a calibration leaves behind."""
        if load_bundle(export("onnx", "int8").bundle).engine["dialect"] != "x86":
            pytest.skip("the calibrated bundle is x86's")
        for name in ("encoder.onnx.gz", "head.onnx.gz", "ranges.json"):
            first = (proved.bundle / name).read_bytes()
            assert first == (export("onnx", "int8").bundle / name).read_bytes(), name


class TestMissingOpenvino:
    """One line that says which package and which extra."""

    def test_at_export(
        self,
        export: Export,
        fitted: tuple[Path, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'mer-edge\[openvino\]'"):
            export_bundle(
                fitted[0], tmp_path / "out", ExportOptions(target="openvino", precision="fp32")
            )
        assert not list(tmp_path.iterdir())

    def test_on_the_device(self, export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
        bundle = load_bundle(export("openvino", "fp32").bundle)
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingExtraError, match="needs the package openvino"):
            open_backend(bundle)
        onnx_bundle = load_bundle(export("onnx", "fp32").bundle)
        assert open_backend(onnx_bundle, threads=1).name.startswith("onnxruntime")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_graphs_of_another_spec(export: Export, target: Any) -> None:
    bundle = load_bundle(export(target, "fp32").bundle)
    audio = dataclasses.replace(bundle.spec.audio, n_mfcc=12, mean=(), std=())
    other = dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, audio=audio))
    with pytest.raises(BundleError, match="but the spec says"):
        open_backend(other)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_graph_that_is_none(export: Export, target: Any, tmp_path: Path) -> None:
    bundle = load_bundle(export(target, "fp32").bundle)
    content = b"not a graph"
    (tmp_path / bundle.encoder.name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    files = {name: {"sha256": digest} for name in bundle.manifest["files"]}
    manifest = {**bundle.manifest, "files": files}
    with pytest.raises(BundleError, match="can't load its graphs"):
        open_backend(dataclasses.replace(bundle, path=tmp_path, manifest=manifest))
