"""An int8 bundle for ONNX Runtime: all layers quantised, and how large it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from mer import Checkpoint
from mer_calibration import DIALECTS, Range, place, quantise_graph
from mer_export import ExportOptions, ExportReport, export_bundle
from mer_export.network.graphs import Graphs
from mer_export.targets import Job
from mer_export.targets.onnx import write_onnx
from mer_runtime.bundle import load_bundle
from mer_runtime.files import read_graph

#: Bytes of a fully quantised pair of graphs.
LARGEST = 2.2e6


class TestInt8Onnx:
    @pytest.mark.parametrize("cpu", ["x86", "arm"])
    def test_dialect_of_the_cpu(
        self, cpu: Any, fitted: tuple[Path, Path], proved: ExportReport, tmp_path: Path
    ) -> None:
        report = export_bundle(
            fitted[0], tmp_path / "out", ExportOptions(ranges=proved.bundle, cpu=cpu, timing=False)
        )
        bundle = load_bundle(report.bundle)
        assert bundle.engine == {"dialect": cpu}
        wanted = {"x86": TensorProto.UINT8, "arm": TensorProto.INT8}[cpu]
        for path in (bundle.encoder, bundle.head):
            graph = onnx.load_from_string(read_graph(path)).graph
            types = {t.name: t.data_type for t in graph.initializer}
            rounded = [n for n in graph.node if n.op_type == "QuantizeLinear"]
            assert rounded
            assert {types[node.input[2]] for node in rounded} == {wanted}

    def test_quantised_graphs_are_small(
        self, exported: tuple[Checkpoint, Graphs], tmp_path: Path
    ) -> None:
        """All three fusions, at full size; what the ranges are makes no difference to it."""
        checkpoint, floats = exported

        def quantise(dialect: Any) -> Graphs:
            graphs = []
            for _, model in floats.items():
                one = Range(-1.0, 1.0, -1.0, 1.0, 0.0)
                ranges = dict.fromkeys(place(model).sources(), one)
                graphs.append(quantise_graph(model, ranges, DIALECTS[dialect]).model)
            return Graphs(*graphs)

        written = write_onnx(Job("int8", checkpoint.spec, floats, quantise, "x86"), tmp_path)
        size = sum((tmp_path / name).stat().st_size for name in written.graphs.values())
        assert 1e6 < size <= LARGEST
