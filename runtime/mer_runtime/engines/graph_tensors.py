"""What is known of a graph's tensors before it runs: their sizes, and the values of shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.engines.wire import MOST_VALUES, Constant, Node

Size = tuple[int, ...]


@dataclass
class Tensors:
    """What is known of a graph's tensors, by name.

    Attributes:
        sizes: of all so far.
        values: of those that are few whole numbers and the same for every input.
        products: multiplications so far.
    """

    sizes: dict[str, Size] = field(default_factory=dict)
    values: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    products: int = 0

    def learn(self, name: str, constant: Constant) -> None:
        """Add a constant."""
        self.sizes[name] = constant.shape
        if constant.values is not None:
            self.values[name] = constant.values

    def of(self, node: Node, i: int = 0) -> Size:
        """Size of an input."""
        return self.sizes[node.inputs[i]]

    def value(self, node: Node, i: int) -> list[int] | None:
        """An input's numbers; None where it isn't given."""
        if len(node.inputs) <= i or not node.inputs[i]:
            return None
        return [int(number) for number in self.values[node.inputs[i]].ravel()]

    def axes(self, node: Node, i: int, rank: int) -> list[int] | None:
        """Axes in an input, counted from the front."""
        given = self.value(node, i)
        return None if given is None else [axis + rank if axis < 0 else axis for axis in given]


def meet(*sizes: Size) -> Size:
    """The size in which arrays meet, as in numpy; without its limit of 64 bits.

    Raises:
        ValueError: they don't.
    """
    rank = max(map(len, sizes))
    found = []
    for column in zip(*((1,) * (rank - len(size)) + size for size in sizes), strict=True):
        wide = {width for width in column if width != 1}
        if len(wide) > 1:
            raise ValueError(f"sizes {column} don't meet")
        found.append(wide.pop() if wide else 1)
    return tuple(found)


#: How those compute that make shapes out of shapes: from the values and the axis.
ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "Add": lambda values, axis: values[0] + values[1],
    "Cast": lambda values, axis: values[0],
    "Concat": lambda values, axis: np.concatenate(values, axis),
    "Gather": lambda values, axis: np.take(values[0], values[1], axis),
    "Identity": lambda values, axis: values[0],
    "Mul": lambda values, axis: values[0] * values[1],
    "Squeeze": lambda values, axis: values[0],
    "Sub": lambda values, axis: values[0] - values[1],
    "Unsqueeze": lambda values, axis: values[0],
}


def follow(known: Tensors, node: Node) -> None:
    """Compute the value of a shape's part, where all that it is made of is known.

    Its size must be known already.
    """
    compute = ARITHMETIC.get(node.operator)
    size = known.sizes[node.outputs[0]]
    if compute is None or math.prod(size) > MOST_VALUES:
        return
    if all(name in known.values for name in node.inputs):
        values = [known.values[name] for name in node.inputs]
        made = np.asarray(compute(values, int(node.attributes.get("axis", 0))), np.int64)
        known.values[node.outputs[0]] = made.reshape(size)
