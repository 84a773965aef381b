"""A bundle's graphs, whatever engine they are for."""

from __future__ import annotations

from pathlib import Path

from mer_export.inspection.layers import FP16, FP32, InspectedGraph, Inspection, Reasons
from mer_export.inspection.onnx import inspect_onnx
from mer_export.inspection.openvino import inspect_ir
from mer_export.targets import TARGETS
from mer_runtime.bundle import ENCODER, HEAD, Bundle, load_bundle
from mer_runtime.engines import graph_error
from mer_runtime.errors import MerError


def inspect_bundle(bundle: str | Path) -> Inspection:
    """Describe the graphs of a bundle: layers by operator and numbers, sizes, multiplications.

    Args:
        bundle: its folder, or the name of one that ships.

    Raises:
        BundleError: it can't be loaded, or its graphs can't be read.
        MissingExtraError: it is for OpenVINO, which isn't installed.
    """
    loaded = load_bundle(bundle)
    manifest = loaded.manifest
    export = TARGETS.get(loaded.target)
    dialect = loaded.engine.get("dialect") or (export.dialect if export else None)
    reasons = Reasons(manifest, f"{dialect}'s integers")
    try:
        graphs = tuple(
            _inspect(loaded, name, file, reasons)
            for name, file in ((ENCODER, loaded.encoder), (HEAD, loaded.head))
        )
    except MerError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise graph_error(loaded, "--inspect", error) from error
    checkpoint = manifest["checkpoint"]
    return Inspection(
        bundle=str(bundle),
        target=loaded.target,
        precision=loaded.precision,
        dialect=dialect if loaded.precision == "int8" else None,
        made_by=str(manifest["made_by"]),
        checkpoint=f"{checkpoint['name']}, sha256 {checkpoint['sha256'][:12]}",
        files={name: int(entry["bytes"]) for name, entry in manifest["files"].items()},
        graphs=graphs,
    )


def _inspect(bundle: Bundle, name: str, file: Path, reasons: Reasons) -> InspectedGraph:
    crops, content = bundle.spec.video.frames, bundle.read_graph(file)
    if ".xml" not in file.suffixes:
        return inspect_onnx(name, content, crops, reasons)
    weights = bundle.read_graph(file.with_name(file.name.replace(".xml", ".bin")))
    floats = FP16 if bundle.precision == "fp16" else FP32
    return inspect_ir(name, content, weights, crops, reasons, floats)
