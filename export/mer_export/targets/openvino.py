"""OpenVINO's files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from mer_calibration.graph.naming import SLASH, Names, shorten_names
from mer_calibration.graph.storage import fits_half
from mer_export.errors import ExportError
from mer_export.targets.job import Export, Job, Written, pack_size
from mer_runtime.bundle import Precision
from mer_runtime.errors import MissingExtraError
from mer_runtime.files import PACKED_SUFFIX, pack_graph

#: Where IR holds what ONNX has in ``metadata_props``.
RT_INFO = "mer_edge"
#: What OpenVINO computes floats in. It is never left to OpenVINO, which takes bfloat16 where the
#: CPU has it; where the CPU lacks float16, asking for it gives float32.
OPENVINO_PRECISIONS: Mapping[Precision, str] = {"fp32": "f32", "fp16": "f16", "int8": "f32"}


def write_openvino(job: Job, folder: Path) -> Written:
    """OpenVINO's IR: ``encoder.xml.gz`` and ``head.xml.gz``, each with a ``.bin.gz`` beside it.

    Packed, the text of the graph goes from a third of the whole to a sixtieth.

    Int8 comes from our own int8 graph, which is faster than NNCF's and as faithful
    (``docs/explanation/calibration.md`` has what was measured).

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
            _name_operations(model, graph, short)
            for entry in graph.metadata_props:
                model.set_rt_info(entry.value, [RT_INFO, entry.key])
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
    return Written(names, settings, None, pack_size(left))


def _name_operations(model: Any, graph: ModelProto, short: ModelProto) -> None:
    """Give operations the names of the ONNX nodes and constants that they come from.

    What OpenVINO made besides is named after what reads it.

    Args:
        graph, short: with tensors' names as they were, and as ``model`` has them.
    """
    known = {value.name: value.name for value in short.graph.input}
    known |= {name: node.name for node in short.graph.node for name in node.output}
    for old, new in zip(graph.graph.initializer, short.graph.initializer, strict=True):
        known[new.name] = old.name
    operations, names = model.get_ordered_ops(), Names()
    given: dict[str, str] = {}
    for operation in operations:
        made = sorted(name for output in operation.outputs() for name in output.get_names())
        found = next((known[name] for name in made if name in known), "")
        if operation.get_type_name() == "Result":  # its tensor has the name of what makes it
            found = "Result"
        if found:
            given[operation.get_name()] = names.add(found)
    for operation in reversed(operations):
        if operation.get_name() not in given:
            (reader, *_) = operation.output(0).get_target_inputs()
            place = given[reader.get_node().get_name()].partition(SLASH)[0]
            name = names.add(f"{place}{SLASH}{operation.get_type_name()}")
            given[operation.get_name()] = name
    for operation in operations:
        operation.set_friendly_name(given[operation.get_name()])


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


EXPORT = Export(
    write_openvino,
    ("openvino",),
    "openvino",
    next_step="next, where the extra openvino is: mer-run {bundle} CLIP",
)
