"""TensorRT's and TensorRT-RTX's files."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import onnx
from onnx import ModelProto

from mer_export.network.graphs import Graphs, emulate_half, to_half
from mer_export.targets.job import Export, Job, Written, find_left, pack_size, save_graphs
from mer_runtime.bundle import ENCODER, HEAD
from mer_runtime.engines.builder import (
    EngineError,
    TensorrtTarget,
    build_engine,
    encoder_profile,
    import_tensorrt,
)
from mer_runtime.engines.cuda import Gpu
from mer_runtime.errors import MissingExtraError
from mer_runtime.files import read_graph


def write_tensorrt(job: Job, folder: Path) -> Written:
    """Strongly typed ONNX graphs, from which the device builds its engines at first use.

    The graph says what is computed in which type: int8 stands between Q/DQ of the tensorrt
    dialect, the rest is float16. The files are packed: ``encoder.onnx.gz``.
    """
    source = job.quantise(job.dialect) if job.precision == "int8" else job.floats
    half = job.precision != "fp32"
    graphs = {name: to_half(model) if half else model for name, model in source.items()}
    left = find_left(graphs.values(), job)
    names = save_graphs(graphs, folder, packed=True)
    shipped = {name: _read(folder / file) for name, file in names.items()}
    stand_in = {name: emulate_half(model) if half else model for name, model in shipped.items()}
    return Written(names, {}, Graphs(stand_in[ENCODER], stand_in[HEAD]), pack_size(left))


def _read(file: Path) -> ModelProto:
    return onnx.load_model_from_string(read_graph(file))


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


def has_engine(target: TensorrtTarget) -> bool:
    """Whether TensorRT is installed and there is a GPU."""
    try:
        import_tensorrt(target)
        Gpu()
    except (MissingExtraError, EngineError):
        return False
    return True


EXPORT = Export(
    write_tensorrt,
    (),
    "tensorrt",
    next_step="next: copy {bundle} to the device; mer-run {bundle} CLIP builds its engines at "
    "first use",
    is_here=partial(has_engine, "tensorrt"),
    remote=True,
)
RTX_EXPORT = Export(
    write_tensorrt_rtx,
    ("tensorrt-rtx",),
    "tensorrt",
    next_step="next, on a PC with a GPU of compute capability 8.0 or more: mer-run {bundle} CLIP",
    is_here=partial(has_engine, "tensorrt-rtx"),
    remote=True,
)
