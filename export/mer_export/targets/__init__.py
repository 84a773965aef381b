"""The targets of an export: a file for each engine, and one table of them.

``docs/contributing/engine.md`` tells how to add one.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from mer_calibration.graph.dialects import DialectName
from mer_export.errors import ExportError
from mer_export.targets import onnx, openvino, tensorrt
from mer_export.targets.job import Export, Job, Written
from mer_runtime.bundle import Target

__all__ = [
    "CPUS",
    "TARGETS",
    "Cpu",
    "Export",
    "Job",
    "Written",
    "find_dialect",
    "find_target",
    "host_cpu",
]

#: What ``--target`` takes.
TARGETS: dict[Target, Export] = {
    "onnx": onnx.EXPORT,
    "openvino": openvino.EXPORT,
    "tensorrt": tensorrt.EXPORT,
    "tensorrt-rtx": tensorrt.RTX_EXPORT,
}

#: One of ``CPUS``.
Cpu = str


@dataclass(frozen=True)
class CpuKind:
    """Processors that ONNX Runtime computes alike on.

    Attributes:
        dialect: of the integers that it multiplies fastest there.
        machines: what ``platform.machine()`` calls them, in lower case.
    """

    dialect: DialectName
    machines: tuple[str, ...]


#: What ``--cpu`` takes. The first is taken for a machine that none of them names.
CPUS: dict[Cpu, CpuKind] = {
    "x86": CpuKind("x86", ("x86_64", "amd64")),
    "arm": CpuKind("arm", ("aarch64", "arm64", "armv7l")),
}


def host_cpu() -> Cpu:
    """The kind of CPU that this process runs on."""
    machine = platform.machine().lower()
    return next((name for name, cpu in CPUS.items() if machine in cpu.machines), next(iter(CPUS)))


def find_target(target: Target) -> Export:
    """The target of that name.

    Raises:
        ExportError: there is none.
    """
    if target not in TARGETS:
        raise ExportError(f"there is no target {target}: take {', '.join(TARGETS)}")
    return TARGETS[target]


def find_dialect(target: Target, cpu: Cpu) -> DialectName:
    """The dialect of an int8 bundle for ``target``; ``cpu`` decides where ONNX Runtime is that.

    Raises:
        ExportError: there is no such target, or no such kind of CPU.
    """
    if cpu not in CPUS:
        raise ExportError(f"there is no kind of CPU {cpu}: take {', '.join(CPUS)}")
    return find_target(target).dialect or CPUS[cpu].dialect
