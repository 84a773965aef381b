"""The facts of a machine that a time depends on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

#: Instruction sets that decide how fast integers and 16-bit floats are multiplied.
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm")
PACKAGES = ("mer-edge", "torch", "onnxruntime", "openvino", "numpy", "opencv-python-headless")


def describe_machine() -> dict[str, Any]:
    """Processor, versions and load, JSON-ready."""
    return {
        "cpu": _cpu_field("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in _cpu_field("flags").split()],
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_field(name: str) -> str:
    """Of the first processor; ARM's kernels call flags features and name no model."""
    names = (name, "Features") if name == "flags" else (name,)
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
