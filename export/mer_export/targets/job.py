"""What a target writes its files from, and what it tells of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.naming import shorten_names
from mer_calibration.graph.storage import find_stored_weights
from mer_export.network.graphs import Graphs
from mer_runtime.bundle import Precision
from mer_runtime.files import pack_graph, writing
from mer_runtime.spec import Spec


@dataclass(frozen=True)
class Job:
    """What a target's files are made from.

    Attributes:
        floats: the float32 graphs.
        quantise: a dialect's name to the int8 graphs.
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
            where the engine must answer itself. They are what the files hold, with float16
            emulated (``emulate_half``).
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
        next_step: what to do with the bundle, in words; ``{bundle}`` is its folder.
        is_here: whether its engine can run on this machine. Where it can't, the stand-in answers.
        remote: its engine runs elsewhere as a rule, and computes in other types: limits are wider.
    """

    write: Callable[[Job, Path], Written]
    packages: tuple[str, ...]
    dialect: DialectName | None
    next_step: str = "next: mer-run {bundle} CLIP"
    is_here: Callable[[], bool] = lambda: True
    remote: bool = False


def find_left(graphs: Iterable[ModelProto], job: Job) -> list[NDArray[Any]]:
    """The weights of a job's float layers, as quantised graphs store them."""
    found = (find_stored_weights(model, job.float_layers) for model in graphs)
    return [weight for weights in found for weight in weights.values()]


def pack_size(weights: Iterable[NDArray[Any]]) -> int:
    """Bytes of weights in a packed file, about: each packed by itself."""
    return sum(len(gzip.compress(weight.tobytes(), 9)) for weight in weights)


def save_graphs(
    graphs: Mapping[str, ModelProto], folder: Path, *, packed: bool = False
) -> dict[str, str]:
    """Write ``NAME.onnx`` for each graph, or ``NAME.onnx.gz``; gives the files' names.

    Raises:
        OutputError: a file can't be written.
    """
    names = {}
    for name, model in graphs.items():
        file = folder / f"{name}.onnx"
        with writing(file):
            onnx.save(shorten_names(model), file)
            names[name] = pack_graph(file).name if packed else file.name
    return names
