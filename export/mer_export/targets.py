"""What each target's graph files are, and how they are made from the deployment graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mer import Checkpoint
from mer_export.deploy import export_onnx
from mer_export.errors import ExportError
from mer_runtime.bundle import Precision, Target
from mer_runtime.errors import MissingExtraError


@dataclass(frozen=True)
class Export:
    """One way to export.

    Attributes:
        graph: the file that the engine loads.
        write: puts the graph's files into a folder.
        packages: what decides the files' content, apart from PyTorch and ONNX.
    """

    graph: str
    write: Callable[[Checkpoint, Path], None]
    packages: tuple[str, ...]


def write_onnx(checkpoint: Checkpoint, folder: Path) -> None:
    """``model.onnx``."""
    export_onnx(checkpoint, folder / "model.onnx")


def write_openvino(checkpoint: Checkpoint, folder: Path) -> None:
    """``model.xml`` and ``model.bin``: OpenVINO's IR with float32 weights.

    Raises:
        MissingExtraError: OpenVINO isn't installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "exporting to OpenVINO") from error
    source = folder / "model.onnx"
    export_onnx(checkpoint, source)
    try:
        model = openvino.convert_model(source)
        # Otherwise names hold a count of all that this process converted.
        model.set_friendly_name("mer-edge")
        for i, operation in enumerate(model.get_ordered_ops()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{i}")
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO can't convert the graph: {error}") from error
    finally:
        source.unlink(missing_ok=True)


EXPORTS: dict[tuple[Target, Precision], Export] = {
    ("onnx", "fp32"): Export("model.onnx", write_onnx, ("onnxruntime",)),
    ("openvino", "fp32"): Export("model.xml", write_openvino, ("openvino",)),
}


def find_export(target: Target, precision: Precision) -> Export:
    """The export for a pair of target and precision.

    Raises:
        ExportError: there is none; the message lists those there are.
    """
    if (target, precision) not in EXPORTS:
        pairs = ", ".join(" ".join(pair) for pair in EXPORTS)
        raise ExportError(f"can't export {target} with {precision}; possible are: {pairs}")
    return EXPORTS[target, precision]
