"""What a bundle's manifest says about its making: source, target, calibration, versions."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer import Checkpoint
from mer_calibration import Certificate, Ranges
from mer_export.network.deploy import OPSET
from mer_export.network.graphs import Graphs
from mer_export.targets import Written, find_target
from mer_runtime.bundle import Precision, Target
from mer_runtime.files import hash_file

DETECTOR_FILE = "face_detector.onnx"
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
) -> dict[str, Any]:
    """A manifest's content but for hashes, with the checkpoint's temperature and no gate yet.

    Args:
        certificate: that no sum of an int8 bundle can overflow; None for others.
    """
    ranges = source.ranges if precision == "int8" else None
    packages = (*VERSIONED, *find_target(target).packages)
    return {
        "made_by": f"mer-edge {importlib.metadata.version('mer-edge')}",
        "target": target,
        "precision": precision,
        "graphs": dict(written.graphs),
        "engine": dict(written.engine),
        "opset": OPSET,
        "spec": source.checkpoint.spec.to_dict(),
        "temperature": source.checkpoint.temperature,
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
        }
        if ranges
        else None,
        "saturation": dataclasses.asdict(certificate) if certificate else None,
        "doubtful_margins": {},
        "gate": None,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
