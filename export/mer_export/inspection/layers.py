"""What an inspection tells, whatever engine the graphs are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mer_calibration.graph.naming import layer_name
from mer_calibration.graph.placement import NARROW, has_few_channels

#: Types of numbers, as a bundle's precisions are called.
INT8, FP16, FP32 = "int8", "fp16", "fp32"


@dataclass(frozen=True)
class InspectedLayer:
    """An operation that multiplies: a layer with weights, or a product of two activations.

    Attributes:
        graph: ``encoder`` or ``head``.
        name: path of the network's module.
        operator: as the graph's format calls it.
        precision: of what it multiplies: ``int8``, ``fp16``, ``fp32``.
        shape: of its weight; empty for a product of two activations.
        macs: multiplications for one window.
        reason: why it is in float in an int8 bundle; None where it isn't.
    """

    graph: str
    name: str
    operator: str
    precision: str
    shape: tuple[int, ...]
    macs: int
    reason: str | None = None


@dataclass(frozen=True)
class InspectedGraph:
    """One graph: its layers, and all its operations counted by operator and type of result."""

    name: str
    layers: tuple[InspectedLayer, ...]
    operations: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Inspection:
    """A bundle's graphs.

    Attributes:
        bundle, target, precision, made_by, checkpoint: as its manifest has them.
        dialect: of int8, where the manifest says one.
        files: bytes of each file that the manifest lists.
        graphs: encoder and head.
    """

    bundle: str
    target: str
    precision: str
    dialect: str | None
    made_by: str
    checkpoint: str
    files: Mapping[str, int]
    graphs: tuple[InspectedGraph, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-export --inspect BUNDLE --json`` prints."""
        told = asdict(self)
        told["files"] = dict(self.files)
        told["graphs"] = [
            {
                "name": graph.name,
                "macs": sum(layer.macs for layer in graph.layers),
                "layers": [asdict(layer) | {"shape": list(layer.shape)} for layer in graph.layers],
                "operations": [
                    {"operator": operator, "type": kind, "count": count}
                    for (operator, kind), count in sorted(graph.operations.items())
                ],
            }
            for graph in self.graphs
        ]
        return told

    def format(self) -> str:
        """Tables of sizes, layers and operations, and what stays in float."""
        dialect = f", dialect {self.dialect}" if self.dialect else ""
        lines = [
            f"{self.bundle}: {self.target} {self.precision}{dialect}",
            f"made by {self.made_by} from {self.checkpoint}",
            "",
            *align([("file", "kB"), *((n, f"{b / 1e3:.1f}") for n, b in self.files.items())]),
            "",
            *align(self._count_layers()),
            "",
        ]
        rows = [("graph", "operations by type of result", "")]
        for graph in self.graphs:
            kinds: dict[str, Counter[str]] = {}
            for (operator, kind), count in graph.operations.items():
                kinds.setdefault(kind, Counter())[operator] += count
            rows += [
                (graph.name, kind, ", ".join(f"{name} {n}" for name, n in found.most_common()))
                for kind, found in sorted(kinds.items())
            ]
        lines += align(rows, words=3)
        left = [layer for graph in self.graphs for layer in graph.layers if layer.reason]
        if left:
            told = [
                (one.graph, one.name, one.operator, f"{one.macs / 1e6:.3f}", str(one.reason))
                for one in left
            ]
            lines += ["", *align([("in float", "", "", "million MACs", "why"), *told], words=5)]
            lines.append(
                "Other operations in float multiply no weights: sums, means, softmax, "
                "normalisations. Rounding them isn't worth it."
            )
        return "\n".join(lines)

    def _count_layers(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("graph", "numbers", "layers", "million MACs a window", "share, %", "weights")
        ]
        whole = sum(layer.macs for graph in self.graphs for layer in graph.layers)
        for graph in self.graphs:
            for precision in (INT8, FP16, FP32):
                found = [layer for layer in graph.layers if layer.precision == precision]
                if not found:
                    continue
                macs = sum(layer.macs for layer in found)
                rows.append(
                    (
                        graph.name,
                        precision,
                        str(len(found)),
                        f"{macs / 1e6:.2f}",
                        f"{100 * macs / max(whole, 1):.2f}",
                        str(sum(count_weights(layer.shape) for layer in found)),
                    )
                )
        return rows


class Reasons:
    """Why a layer of an int8 bundle is in float.

    Args:
        manifest: the bundle's.
        dialect: of its integers, as a person calls it.
    """

    def __init__(self, manifest: Mapping[str, Any], dialect: str) -> None:
        calibration = manifest["calibration"] or {}
        self._quantised = manifest["precision"] == INT8
        self._kept = {layer_name(name) for name in calibration.get("float_layers", ())}
        self._asked = {layer_name(name) for name in calibration.get("float_head", ())}
        self._dialect = dialect

    def find(self, name: str, operator: str, precision: str, shape: Sequence[int]) -> str | None:
        """Of one layer; ``operator`` is ONNX's."""
        if not self._quantised or precision == INT8:
            return None
        if name in self._asked:
            return "--float-head asks for it"
        if name in self._kept:
            return "the gate holds only so"
        if not shape:
            return f"a product of two activations, which stays float for {self._dialect}"
        if has_few_channels(operator, shape):
            return f"fewer than {NARROW} channels in or out: int8 gains nothing"
        return "its input isn't rounded"


def count_weights(shape: Sequence[int]) -> int:
    """Numbers in a weight; none where there is no weight."""
    count = 1 if shape else 0
    for size in shape:
        count *= size
    return count


def align(rows: Sequence[Sequence[str]], words: int = 2) -> list[str]:
    """Rows as lines; the first ``words`` columns are text, on the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
