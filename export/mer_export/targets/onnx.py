"""ONNX Runtime's files."""

from __future__ import annotations

from pathlib import Path

from mer_calibration.graph.storage import halve_weights
from mer_export.network.graphs import to_half
from mer_export.targets.job import Export, Job, Written, find_left, pack_size, save_graphs


def write_onnx(job: Job, folder: Path) -> Written:
    """``encoder.onnx`` and ``head.onnx`` for ONNX Runtime; int8 is packed: ``encoder.onnx.gz``.

    Int8 weights hold many zeros: widths are whole blocks of channels, and a convolution that was
    grouped reads one input channel for each output.
    """
    if job.precision == "int8":
        halved = {name: halve_weights(model) for name, model in job.quantise(job.dialect).items()}
        names = save_graphs(halved, folder, packed=True)
        size = pack_size(find_left(halved.values(), job))
        return Written(names, {"dialect": job.dialect}, None, size)
    half = job.precision == "fp16"
    graphs = {name: to_half(model) if half else model for name, model in job.floats.items()}
    return Written(save_graphs(graphs, folder), {})


EXPORT = Export(write_onnx, ("onnxruntime",), dialect=None)
