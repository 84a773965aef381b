"""The targets of an export: a file for each engine, and one table of them."""

from __future__ import annotations

import platform
from typing import Literal, get_args

from mer_calibration.graph.dialects import DialectName
from mer_export.targets import onnx, openvino, tensorrt
from mer_export.targets.job import Export, Job, Written
from mer_runtime.bundle import Target

__all__ = ["CPUS", "TARGETS", "Cpu", "Export", "Job", "Written", "find_dialect", "host_cpu"]

Cpu = Literal["x86", "arm"]
CPUS: tuple[Cpu, ...] = get_args(Cpu)

#: What ``--target`` takes.
TARGETS: dict[Target, Export] = {
    "onnx": onnx.EXPORT,
    "openvino": openvino.EXPORT,
    "tensorrt": tensorrt.EXPORT,
    "tensorrt-rtx": tensorrt.RTX_EXPORT,
}


def host_cpu() -> Cpu:
    """The kind of CPU that this process runs on."""
    return "arm" if platform.machine().lower() in ("aarch64", "arm64", "armv7l") else "x86"


def find_dialect(target: Target, cpu: Cpu) -> DialectName:
    """The dialect of an int8 bundle for ``target``; ``cpu`` decides where ONNX Runtime is that."""
    return TARGETS[target].dialect or cpu
