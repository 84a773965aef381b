"""The engines: a row for each. ``docs/contributing/engine.md`` tells how to add one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_runtime.errors import MerError

#: What Linux tells about the processor. Without it ONNX Runtime 1.19 to 1.23 end the process.
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Engine:
    """An engine.

    Attributes:
        backend: where its ``Backend`` is, as ``module:Class``; called with (bundle, threads).
        target: what ``mer-export --target`` calls the bundles that are made for it.
        reads: other targets, whose files it reads as well, and for each the settings that take the
            place of the manifest's ``engine``.
        needs_cpu_info: on Linux its import ends the process without ``CPU_INFO``.
    """

    backend: str
    target: str
    reads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs_cpu_info: bool = False

    def load(self) -> Any:
        """The class of its backend; its module is imported now and not before.

        Raises:
            MissingExtraError: its package isn't installed.
            MerError: the system lacks what it needs.
        """
        if self.needs_cpu_info and sys.platform.startswith("linux") and not CPU_INFO.exists():
            raise MerError(
                f"ONNX Runtime can't be loaded without {CPU_INFO}: mount /proc here "
                "(mount -t proc proc /proc), or use another --backend"
            )
        module, _, name = self.backend.partition(":")
        return getattr(importlib.import_module(module), name)


#: What OpenVINO computes TensorRT's graphs in: not with its int8 kernels (see its module).
_SIGNED = {"inference_precision": "f32", "int8_kernels": False}
#: By what ``--backend`` calls them. OpenVINO's format is its alone; the others' graphs are ONNX,
#: which ONNX Runtime and OpenVINO both read.
ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(
        "mer_runtime.engines.onnx:OnnxBackend",
        "onnx",
        reads={"tensorrt": {}, "tensorrt-rtx": {}},
        needs_cpu_info=True,
    ),
    "openvino": Engine(
        "mer_runtime.engines.openvino:OpenvinoBackend",
        "openvino",
        reads={
            "onnx": {"inference_precision": "f32"},
            "tensorrt": _SIGNED,
            "tensorrt-rtx": _SIGNED,
        },
    ),
    "tensorrt": Engine("mer_runtime.engines.tensorrt:TensorrtBackend", "tensorrt"),
    "tensorrt-rtx": Engine("mer_runtime.engines.tensorrt:TensorrtBackend", "tensorrt-rtx"),
}


def list_targets() -> list[str]:
    """What a bundle may be made for."""
    return [engine.target for engine in ENGINES.values()]


def list_engines(target: str) -> list[str]:
    """The engines that can run a bundle for ``target``, its own first; none if it is unknown."""
    own = [name for name, engine in ENGINES.items() if engine.target == target]
    return own + [name for name, engine in ENGINES.items() if target in engine.reads]
