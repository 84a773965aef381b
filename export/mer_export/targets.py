"""What each target's graph files are, and how they are made from the deployment graphs."""

from __future__ import annotations

import gzip
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
from onnx import ModelProto

from mer_calibration.dialects import DialectName
from mer_calibration.naming import shorten_names
from mer_calibration.packing import pack_constants
from mer_export.errors import ExportError
from mer_export.graphs import Graphs, to_half
from mer_runtime.bundle import ENCODER, HEAD, Precision, Target
from mer_runtime.engine_builder import build_engine, encoder_profile, import_tensorrt
from mer_runtime.errors import MissingExtraError, OutputError
from mer_runtime.spec import Spec

Cpu = Literal["x86", "arm"]
CPUS: tuple[Cpu, ...] = get_args(Cpu)

#: What OpenVINO computes floats in. It is never left to OpenVINO, which takes bfloat16 where the
#: CPU has it; where the CPU lacks float16, asking for it gives float32.
OPENVINO_PRECISIONS: Mapping[Precision, str] = {"fp32": "f32", "fp16": "f16", "int8": "f32"}


@dataclass(frozen=True)
class Job:
    """What a target's files are made from.

    Attributes:
        floats: the float32 graphs.
        quantise: a dialect's name to the graphs on integers.
        cpu: what an int8 graph for ONNX Runtime is made for.
    """

    precision: Precision
    spec: Spec
    floats: Graphs
    quantise: Callable[[DialectName], Graphs]
    cpu: Cpu


@dataclass(frozen=True)
class Written:
    """A target's files.

    Attributes:
        graphs: file of each graph that the engine loads.
        engine: settings for the manifest.
        stand_in: graphs that ONNX Runtime answers from where the target's engine can't run; None
            where the engine must answer itself. Int8's has the same integers between float32.
    """

    graphs: Mapping[str, str]
    engine: Mapping[str, Any]
    stand_in: Graphs | None = None


@dataclass(frozen=True)
class Export:
    """One target.

    Attributes:
        write: puts the graphs' files into a folder.
        packages: what decides the files' content, apart from PyTorch and ONNX.
    """

    write: Callable[[Job, Path], Written]
    packages: tuple[str, ...]


def host_cpu() -> Cpu:
    """The kind of CPU that this process runs on."""
    return "arm" if platform.machine().lower() in ("aarch64", "arm64", "armv7l") else "x86"


def write_onnx(job: Job, folder: Path) -> Written:
    """``encoder.onnx`` and ``head.onnx`` for ONNX Runtime."""
    if job.precision == "int8":
        packed = {name: pack_constants(model) for name, model in job.quantise(job.cpu).items()}
        return Written(save_graphs(packed, folder), {"dialect": job.cpu})
    half = job.precision == "fp16"
    graphs = {name: to_half(model) if half else model for name, model in job.floats.items()}
    return Written(save_graphs(graphs, folder), {})


def write_openvino(job: Job, folder: Path) -> Written:
    """OpenVINO's IR: ``encoder.xml.gz`` and ``head.xml.gz``, each with a ``.bin.gz`` beside it.

    Packed, the text of the graph goes from a third of the whole to a sixtieth.

    Int8 comes from our own graph on integers, which is faster than NNCF's and as faithful
    (``docs/accuracy.md`` has what was measured).

    Raises:
        MissingExtraError: OpenVINO isn't installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "exporting to OpenVINO") from error
    source = job.quantise("openvino") if job.precision == "int8" else job.floats
    names = {}
    for name, graph in source.items():
        onnx_file = folder / f"{name}.onnx"
        onnx.save(shorten_names(graph), onnx_file)
        try:
            model = openvino.convert_model(onnx_file)
            # Otherwise names hold a count of all that this process converted.
            model.set_friendly_name("mer-edge")
            for i, operation in enumerate(model.get_ordered_ops()):
                operation.set_friendly_name(f"{operation.get_type_name()}_{i}")
            half = job.precision == "fp16"
            openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=half)
            for part in ("xml", "bin"):
                _compress(folder / f"{name}.{part}")
        except RuntimeError as error:
            raise ExportError(f"OpenVINO can't convert the {name}: {error}") from error
        finally:
            onnx_file.unlink(missing_ok=True)
        names[name] = f"{name}.xml.gz"
    return Written(names, {"inference_precision": OPENVINO_PRECISIONS[job.precision]})


def write_tensorrt(job: Job, folder: Path) -> Written:
    """Strongly typed ONNX graphs, from which the device builds its engines at first use.

    The graph says what is computed in which type: int8 stands between Q/DQ of the portable
    dialect, the rest is float16.
    """
    stand_in = job.floats
    if job.precision == "int8":
        stand_in = job.quantise("portable")
    elif job.precision == "fp16":
        stand_in = Graphs(*(to_half(model) for _, model in job.floats.items()))
    graphs = dict(stand_in.items())
    if job.precision == "int8":
        graphs = {name: to_half(model) for name, model in graphs.items()}
    return Written(save_graphs(graphs, folder), {}, stand_in)


def write_tensorrt_rtx(job: Job, folder: Path) -> Written:
    """The graphs of ``tensorrt`` and the engines built from them, which needs no GPU.

    Raises:
        MissingExtraError: TensorRT-RTX isn't installed.
        EngineError: it refuses a graph.
    """
    trt = import_tensorrt("tensorrt-rtx")
    written = write_tensorrt(job, folder)
    files = {}
    for name, profile in ((ENCODER, encoder_profile(job.spec)), (HEAD, None)):
        engine = build_engine(trt, folder / written.graphs[name], profile=profile)
        files[name] = f"{name}.engine"
        (folder / files[name]).write_bytes(engine)
    return Written(written.graphs, {"version": trt.__version__, "files": files}, written.stand_in)


EXPORTS: dict[Target, Export] = {
    "onnx": Export(write_onnx, ("onnxruntime",)),
    "openvino": Export(write_openvino, ("openvino",)),
    "tensorrt": Export(write_tensorrt, ()),
    "tensorrt-rtx": Export(write_tensorrt_rtx, ("tensorrt-rtx",)),
}


def _compress(file: Path) -> None:
    """Put ``FILE.gz`` in place of ``FILE``; the same content always gives the same bytes."""
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))
    file.unlink()


def save_graphs(graphs: Mapping[str, ModelProto], folder: Path) -> dict[str, str]:
    """Write ``NAME.onnx`` for each graph; gives the files' names."""
    names = {name: f"{name}.onnx" for name in graphs}
    for name, model in graphs.items():
        try:
            onnx.save(shorten_names(model), folder / names[name])
        except OSError as error:
            raise OutputError(folder / names[name], error.strerror or str(error)) from error
    return names
