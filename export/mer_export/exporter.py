"""Checkpoint to bundle: graph, gate, manifest, and one rename at the end."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer import Checkpoint, load_checkpoint
from mer.weights import shipped_checkpoint
from mer_export.deploy import OPSET
from mer_export.gate import TOLERANCES, GateReport, check_golden
from mer_export.golden import golden_reference
from mer_export.targets import find_export
from mer_runtime import Recognizer
from mer_runtime.bundle import (
    MANIFEST_FILE,
    Golden,
    Precision,
    Target,
    hash_file,
    write_golden,
    write_manifest,
)
from mer_runtime.errors import OutputError
from mer_runtime.face import YuNetDetector, find_detector_file
from mer_runtime.spec import Spec

DETECTOR_FILE = "face_detector.onnx"
#: Of an export: the reference's answers, the graph, the gate.
STAGES = 3
#: Packages whose versions decide what an export looks like.
VERSIONED = ("mer-edge", "torch", "onnx", "onnxscript", "numpy")


@dataclass(frozen=True)
class ExportReport:
    """What an export made.

    Attributes:
        bundle: the folder.
        size: bytes of all its files.
        graph_size: bytes of the graph's files alone.
        gate: what was compared, and how well it agreed.
        face_detector: whether a YuNet file is in it.
    """

    bundle: Path
    target: Target
    precision: Precision
    size: int
    graph_size: int
    gate: GateReport
    face_detector: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-export --json`` prints."""
        return {
            "bundle": str(self.bundle),
            "target": self.target,
            "precision": self.precision,
            "size": self.size,
            "graph_size": self.graph_size,
            "gate": self.gate.to_dict(),
            "face_detector": self.face_detector,
        }


def export_bundle(
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    *,
    target: Target = "onnx",
    precision: Precision = "fp32",
    face_detector: str | Path | None = None,
    labels: tuple[str, ...] | None = None,
    num_heads: int | None = None,
    spec: Spec | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Make a bundle from a checkpoint, and prove it on the golden inputs.

    Args:
        checkpoint: ours or the reference implementation's; by default the one that ships.
        out: the bundle's folder, by default ``MODEL-TARGET-PRECISION`` here. A bundle that is
            there already is replaced; another folder with something in it is refused.
        face_detector: YuNet's file to put in, by default that of ``$MER_FACE_DETECTOR``.
        labels, num_heads, spec: see ``mer.load_checkpoint``.
        progress: called with (stages done, stages in all).

    Raises:
        CheckpointError: the checkpoint can't be loaded.
        ExportError: the pair of target and precision, or the network, can't be exported.
        FaceDetectorError: ``face_detector`` isn't a YuNet file.
        GateError: the bundle's answers differ from the checkpoint's; nothing is written.
        OutputError: ``out`` can't be written.
    """
    step = progress or (lambda done, total: None)
    export = find_export(target, precision)
    source = Path(checkpoint) if checkpoint is not None else shipped_checkpoint()
    loaded = load_checkpoint(source, num_heads=num_heads, labels=labels, spec=spec)
    detector = find_detector_file(face_detector)
    if detector:
        YuNetDetector(detector)  # refuses anything else, before the work begins
    folder = Path(out) if out is not None else Path(f"{source.stem}-{target}-{precision}")
    _check_replaceable(folder)
    golden = golden_reference(loaded, TOLERANCES[precision])
    step(1, STAGES)
    with _replacing(folder) as draft:
        export.write(loaded, draft)
        step(2, STAGES)
        graph_size = sum(file.stat().st_size for file in draft.iterdir())
        if detector:
            shutil.copyfile(detector, draft / DETECTOR_FILE)
        content = {
            "made_by": f"mer-edge {importlib.metadata.version('mer-edge')}",
            "target": target,
            "precision": precision,
            "graphs": {"clip": export.graph},
            "opset": OPSET,
            "spec": loaded.spec.to_dict(),
            "face_detector": DETECTOR_FILE if detector else None,
            "checkpoint": {
                "name": source.name,
                "sha256": hash_file(source),
                "notes": loaded.notes,
            },
            "versions": {
                name: importlib.metadata.version(name) for name in (*VERSIONED, *export.packages)
            },
        }
        report = _pass_gate(draft, content, golden, loaded)
        step(3, STAGES)
        size = sum(file.stat().st_size for file in draft.iterdir())
    return ExportReport(
        bundle=folder,
        target=target,
        precision=precision,
        size=size,
        graph_size=graph_size,
        gate=report,
        face_detector=bool(detector),
    )


def _pass_gate(
    draft: Path, content: dict[str, Any], golden: Golden, checkpoint: Checkpoint
) -> GateReport:
    """Load the draft as a device would, compare, and complete its files."""
    write_golden(draft, golden)
    write_manifest(draft, {**content, "gate": None})
    engine = Recognizer.load(draft)
    golden, report = check_golden(golden, engine.infer, golden.tolerance)
    write_golden(draft, golden)
    write_manifest(draft, {**content, "gate": report.to_dict()})
    return report


def _check_replaceable(folder: Path) -> None:
    """A bundle may be replaced, an empty folder filled; anything else is somebody's work."""
    if folder.is_dir():
        if any(folder.iterdir()) and not (folder / MANIFEST_FILE).is_file():
            raise OutputError(folder, "the folder holds something else than a bundle")
    elif folder.exists():
        raise OutputError(folder, "a file of that name is there")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A draft folder beside ``folder`` that takes its place when the block ends well."""
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp's 0o700 is for its owner alone
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=draft.parent))
            folder.replace(old)
            draft.replace(folder)
            shutil.rmtree(old)
        else:
            draft.replace(folder)
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
