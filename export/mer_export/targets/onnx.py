"""ONNX Runtime's files."""

from __future__ import annotations

from pathlib import Path

from mer_calibration.graph.packing import pack_constants
from mer_export.network.graphs import to_half
from mer_export.targets.job import Export, Job, Written, find_left, save_graphs


def write_onnx(job: Job, folder: Path) -> Written:
    """``encoder.onnx`` and ``head.onnx`` for ONNX Runtime."""
    if job.precision == "int8":
        packed = {name: pack_constants(model) for name, model in job.quantise(job.dialect).items()}
        left = find_left(packed.values(), job)
        settings = {"dialect": job.dialect}
        return Written(save_graphs(packed, folder), settings, None, sum(w.nbytes for w in left))
    half = job.precision == "fp16"
    graphs = {name: to_half(model) if half else model for name, model in job.floats.items()}
    return Written(save_graphs(graphs, folder), {})


EXPORT = Export(write_onnx, ("onnxruntime",), dialect=None)
