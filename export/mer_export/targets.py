"""What each target's graph files are, and how they are made from the deployment graphs."""

from __future__ import annotations

import dataclasses
import gzip
import platform
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from mer_calibration.dialects import DialectName
from mer_calibration.naming import shorten_names
from mer_calibration.packing import find_stored_weights, fits_half, pack_constants
from mer_export.errors import ExportError
from mer_export.graphs import Graphs, to_half
from mer_runtime.bundle import ENCODER, HEAD, Precision, Target
from mer_runtime.engine_builder import build_engine, encoder_profile, import_tensorrt
from mer_runtime.errors import MissingExtraError, OutputError
from mer_runtime.graph_file import PACKED_SUFFIX, pack_graph
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
        dialect: that of the target's integers.
        float_layers: layers that an int8 graph leaves in float.
    """

    precision: Precision
    spec: Spec
    floats: Graphs
    quantise: Callable[[DialectName], Graphs]
    dialect: DialectName
    float_layers: Collection[str] = ()


@dataclass(frozen=True)
class Written:
    """A target's files.

    Attributes:
        graphs: file of each graph that the engine loads.
        engine: settings for the manifest.
        stand_in: graphs that ONNX Runtime answers from where the target's engine can't run; None
            where the engine must answer itself. Int8's has the same integers between float32.
        float_size: bytes that the weights of the job's ``float_layers`` take in these files.
    """

    graphs: Mapping[str, str]
    engine: Mapping[str, Any]
    stand_in: Graphs | None = None
    float_size: int = 0


@dataclass(frozen=True)
class Export:
    """One target.

    Attributes:
        write: puts the graphs' files into a folder.
        packages: what decides the files' content, apart from PyTorch and ONNX.
        dialect: of its integers; None where the CPU decides.
    """

    write: Callable[[Job, Path], Written]
    packages: tuple[str, ...]
    dialect: DialectName | None


def host_cpu() -> Cpu:
    """The kind of CPU that this process runs on."""
    return "arm" if platform.machine().lower() in ("aarch64", "arm64", "armv7l") else "x86"


def write_onnx(job: Job, folder: Path) -> Written:
    """``encoder.onnx`` and ``head.onnx`` for ONNX Runtime."""
    if job.precision == "int8":
        packed = {name: pack_constants(model) for name, model in job.quantise(job.dialect).items()}
        left = _find_left(packed.values(), job)
        settings = {"dialect": job.dialect}
        return Written(save_graphs(packed, folder), settings, None, sum(w.nbytes for w in left))
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
    source = job.quantise(job.dialect) if job.precision == "int8" else job.floats
    names = {}
    left: list[NDArray[Any]] = []
    for name, graph in source.items():
        onnx_file = folder / f"{name}.onnx"
        short = shorten_names(graph)
        onnx.save(short, onnx_file)
        tensors = zip(graph.graph.initializer, short.graph.initializer, strict=True)
        kept = {new.name for old, new in tensors if old.name in job.float_layers}
        try:
            model = openvino.convert_model(onnx_file)
            left += _halve_constants(model, kept)
            # Otherwise names hold a count of all that this process converted.
            model.set_friendly_name("mer-edge")
            for i, operation in enumerate(model.get_ordered_ops()):
                operation.set_friendly_name(f"{operation.get_type_name()}_{i}")
            half = job.precision == "fp16"
            openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=half)
            for part in ("xml", "bin"):
                pack_graph(folder / f"{name}.{part}")
        except RuntimeError as error:
            raise ExportError(f"OpenVINO can't convert the {name}: {error}") from error
        finally:
            onnx_file.unlink(missing_ok=True)
        names[name] = f"{name}.xml{PACKED_SUFFIX}"
    settings = {"inference_precision": OPENVINO_PRECISIONS[job.precision]}
    return Written(names, settings, None, _pack_size(left))


def _halve_constants(model: Any, names: Collection[str]) -> list[NDArray[Any]]:
    """Store those of a model's constants as float16 that it holds; gives all as they are stored.

    ``convert_model`` computes casts of constants at once, so this comes after it.
    """
    from openvino import opset13

    stored = []
    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "Constant" or operation.get_friendly_name() not in names:
            continue
        value = np.array(operation.data)
        if fits_half(value):
            value = value.astype(np.float16)
            wide = opset13.convert(opset13.constant(value), "f32")
            operation.output(0).replace(wide.output(0))
        stored.append(value)
    return stored


def write_tensorrt(job: Job, folder: Path) -> Written:
    """Strongly typed ONNX graphs, from which the device builds its engines at first use.

    The graph says what is computed in which type: int8 stands between Q/DQ of the portable
    dialect, the rest is float16. TensorRT wants weights as plain constants, zeros and all
    (``mer_calibration.packing``), so the files are packed: ``encoder.onnx.gz``.
    """
    stand_in = job.floats
    if job.precision == "int8":
        stand_in = job.quantise(job.dialect)
    elif job.precision == "fp16":
        stand_in = Graphs(*(to_half(model) for _, model in job.floats.items()))
    graphs = dict(stand_in.items())
    if job.precision == "int8":
        graphs = {name: to_half(model) for name, model in graphs.items()}
    left = _find_left(graphs.values(), job)
    names = save_graphs(graphs, folder)
    try:
        packed = {name: pack_graph(folder / file).name for name, file in names.items()}
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    return Written(packed, {}, stand_in, _pack_size(left))


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
    return dataclasses.replace(written, engine={"version": trt.__version__, "files": files})


EXPORTS: dict[Target, Export] = {
    "onnx": Export(write_onnx, ("onnxruntime",), None),
    "openvino": Export(write_openvino, ("openvino",), "openvino"),
    "tensorrt": Export(write_tensorrt, (), "portable"),
    "tensorrt-rtx": Export(write_tensorrt_rtx, ("tensorrt-rtx",), "portable"),
}


def find_dialect(target: Target, cpu: Cpu) -> DialectName:
    """The dialect of an int8 bundle for ``target``; ``cpu`` decides where ONNX Runtime is that."""
    return EXPORTS[target].dialect or cpu


def _find_left(graphs: Iterable[ModelProto], job: Job) -> list[NDArray[Any]]:
    """The weights of a job's float layers, as quantised graphs store them."""
    found = (find_stored_weights(model, job.float_layers) for model in graphs)
    return [weight for weights in found for weight in weights.values()]


def _pack_size(weights: Iterable[NDArray[Any]]) -> int:
    """Bytes of weights in a packed file, about: each packed by itself."""
    return sum(len(gzip.compress(weight.tobytes(), 9)) for weight in weights)


def save_graphs(graphs: Mapping[str, ModelProto], folder: Path) -> dict[str, str]:
    """Write ``NAME.onnx`` for each graph; gives the files' names."""
    names = {name: f"{name}.onnx" for name in graphs}
    for name, model in graphs.items():
        try:
            onnx.save(shorten_names(model), folder / names[name])
        except OSError as error:
            raise OutputError(folder / names[name], error.strerror or str(error)) from error
    return names
