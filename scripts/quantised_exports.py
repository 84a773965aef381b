"""Shipped checkpoints exported to int8, with the graphs that their bundles were made of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from onnx import ModelProto, helper

from mer_calibration.graph.dialects import DialectName
from mer_export import ExportOptions, export_bundle
from mer_export.targets import TARGETS, Cpu, Job, Written
from mer_runtime.bundle import FEATURES, Target
from mer_runtime.spec import Fusion

#: How a dialect is asked for. What is in ``tensorrt`` no processor multiplies in int8: it is
#: TensorRT's, and ONNX Runtime, which stands in for that, has its float biases computed in float.
DIALECTS: dict[DialectName, tuple[Target, Cpu | None]] = {
    "x86": ("onnx", "x86"),
    "openvino": ("openvino", None),
    "arm": ("onnx", "arm"),
}


@dataclass(frozen=True)
class Exported:
    """A bundle, and its graphs with Q/DQ pairs by name, as they were before they were packed."""

    fusion: Fusion
    dialect: DialectName
    bundle: Path
    graphs: dict[str, ModelProto]

    @property
    def engine(self) -> Target:
        return DIALECTS[self.dialect][0]


def export_int8(fusion: Fusion, dialect: DialectName, folder: Path) -> Exported:
    """Export a shipped checkpoint into a new folder in ``folder``.

    Raises:
        MerError: as ``mer_export.export_bundle``.
    """
    target, cpu = DIALECTS[dialect]
    graphs: dict[str, ModelProto] = {}
    export = TARGETS[target]

    def write(job: Job, out: Path) -> Written:
        graphs.update(job.quantise(job.dialect).items())
        return export.write(job, out)

    with mock.patch.dict(TARGETS, {target: dataclasses.replace(export, write=write)}):
        report = export_bundle(
            fusion,
            folder / f"{fusion}-{dialect}",
            ExportOptions(target=target, cpu=cpu, timing=False),
        )
    return Exported(fusion, dialect, report.bundle, graphs)


def put_out_integers(encoder: ModelProto) -> ModelProto:
    """A copy of an ONNX graph that puts its last rounded tensor out, too."""
    copy = ModelProto()
    copy.CopyFrom(encoder)
    rounding = [node for node in copy.graph.node if node.op_type == "QuantizeLinear"][-1]
    types = {tensor.name: tensor.data_type for tensor in copy.graph.initializer}
    output = helper.make_tensor_value_info(rounding.output[0], types[rounding.input[2]], None)
    assert [value.name for value in copy.graph.output] == [FEATURES]
    copy.graph.output.append(output)
    return copy
