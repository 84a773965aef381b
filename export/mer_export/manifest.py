"""What a bundle's manifest says about its making: source, target, calibration, versions."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mer import Checkpoint
from mer_calibration import Certificate, Ranges
from mer_calibration.graph.dialects import DialectName
from mer_export.network.deploy import OPSET
from mer_export.network.graphs import Graphs
from mer_export.targets import Written, find_target
from mer_runtime.bundle import Precision, Target
from mer_runtime.files import hash_file

DETECTOR_FILE = "face_detector.onnx"
#: What graphs and manifests say they were made by.
PRODUCER = "mer-edge"
#: Packages whose versions decide what an export looks like.
VERSIONED = ("mer-edge", "torch", "onnx", "onnxscript", "numpy")


@dataclass(frozen=True)
class Source:
    """What is exported."""

    path: Path
    checkpoint: Checkpoint
    floats: Graphs
    ranges: Ranges | None
    detector: Path | None
    no_face: NDArray[np.float32]  # see ``Bundle.no_face``


def describe_bundle(
    source: Source,
    target: Target,
    precision: Precision,
    written: Written,
    float_layers: Sequence[str],
    certificate: Certificate | None,
    *,
    float_head: Sequence[str] = (),
) -> dict[str, Any]:
    """A manifest's content but for hashes, with the checkpoint's temperatures and no gate yet.

    Args:
        certificate: that no sum of an int8 bundle can overflow; None for others.
        float_head: those of ``float_layers`` that are in float only because somebody asked.
    """
    ranges = source.ranges if precision == "int8" else None
    packages = (*VERSIONED, *find_target(target).packages)
    return {
        "made_by": f"{PRODUCER} {importlib.metadata.version(PRODUCER)}",
        "target": target,
        "precision": precision,
        "graphs": dict(written.graphs),
        "engine": dict(written.engine),
        "opset": OPSET,
        "spec": source.checkpoint.spec.to_dict(),
        "temperatures": source.checkpoint.temperatures.to_dict(),
        "face_detector": DETECTOR_FILE if source.detector else None,
        "checkpoint": {
            "name": source.path.name,
            "sha256": hash_file(source.path),
            "notes": source.checkpoint.notes,
        },
        "calibration": {
            "graphs": dict(ranges.graphs),
            "clips": ranges.clips,
            "clips_sha256": ranges.clips_sha256,
            "corpus": ranges.corpus,
            "float_layers": list(float_layers),
            "float_head": list(float_head),
        }
        if ranges
        else None,
        "saturation": dataclasses.asdict(certificate) if certificate else None,
        "doubtful_margins": {},
        "gate": None,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def describe_graphs(
    graphs: Graphs,
    source: Source,
    precision: Precision,
    dialect: DialectName | None = None,
    certificate: Certificate | None = None,
) -> Graphs:
    """The graphs with their producer, and in ``metadata_props`` what one needs to feed them.

    ``labels``, ``preprocessing`` (a spec's ``audio`` and ``video``) and ``certificate`` are JSON.
    The temperatures aren't known yet: they are fitted to the answers of what is written here.

    Args:
        dialect, certificate: of int8.
    """
    spec = source.checkpoint.spec.to_dict()
    version = importlib.metadata.version(PRODUCER)
    notes = {
        "labels": _to_json(spec["labels"]),
        "preprocessing": _to_json({name: spec[name] for name in ("audio", "video")}),
        "fusion": spec["fusion"],
        "precision": precision,
        "version": f"{PRODUCER} {version}",
        "checkpoint": source.path.name,
        "checkpoint_sha256": hash_file(source.path),
    }
    if dialect is not None and certificate is not None:
        notes["dialect"] = dialect
        notes["certificate"] = _to_json(dataclasses.asdict(certificate))
    described = []
    for _, model in graphs.items():
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.producer_name, copy.producer_version = PRODUCER, version
        onnx.helper.set_model_props(copy, notes)
        described.append(copy)
    return Graphs(*described)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
