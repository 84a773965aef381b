"""The operators that a bundle's graph may have, and how large what they make is.

All of them end, open no file, and make what the sizes of their inputs decide. ``mer-export`` writes
a third of them; the others are those that a fusion or an encoder of one's own may need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from mer_runtime.engines.graph_tensors import Size, Tensors, meet
from mer_runtime.engines.wire import Constant, Node

#: Elements of a kernel.
MOST_KERNEL = 1 << 10


Rule = Callable[[Tensors, Node], "list[Size]"]


def _alike(known: Tensors, node: Node) -> list[Size]:
    return [known.of(node)]


def _meet(known: Tensors, node: Node) -> list[Size]:
    return [meet(*(known.sizes[name] for name in node.inputs))]


def _multiply(known: Tensors, node: Node) -> list[Size]:
    one, other = known.of(node), known.of(node, 1)
    rows, columns = one[-2:-1], other[-1:] if len(other) > 1 else ()
    size = (*meet(one[:-2], other[:-2]), *rows, *columns)
    known.products += math.prod(size) * one[-1]
    return [size]


def _gemm(known: Tensors, node: Node) -> list[Size]:
    one, other = known.of(node), known.of(node, 1)
    rows, inner = one[::-1] if node.attributes.get("transA") else one
    columns = other[0] if node.attributes.get("transB") else other[1]
    known.products += rows * columns * inner
    return [(rows, columns)]


def _slide(known: Tensors, node: Node) -> list[Size]:
    """A convolution or a pooling."""
    batch, channels, *spatial = known.of(node)
    if node.operator == "Conv":
        channels, inner, *kernel = known.of(node, 1)
    else:
        inner, kernel = 1, list(node.attributes["kernel_shape"])
    if math.prod(kernel) > MOST_KERNEL or min(kernel) < 1:
        raise ValueError(f"a kernel of {kernel}")
    rank = len(spatial)
    strides = node.attributes.get("strides", (1,) * rank)
    dilations = node.attributes.get("dilations", (1,) * rank)
    pads = node.attributes.get("pads", (0,) * 2 * rank)
    same = str(node.attributes.get("auto_pad", "")).startswith("SAME")
    found = []
    for i, width in enumerate(spatial):
        room = width + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1
        if min(strides[i], dilations[i]) < 1 or min(pads) < 0:
            raise ValueError("a step of nothing")
        steps = -(-width // strides[i]) - 1 if same else room // strides[i]
        if node.attributes.get("ceil_mode") and not same:
            steps = -(-room // strides[i])
        found.append(steps + 1)
    known.products += math.prod((batch, channels, *found, inner, *kernel))
    return [(batch, channels, *found)] * len(node.outputs)


def _pool_all(known: Tensors, node: Node) -> list[Size]:
    batch, channels, *spatial = known.of(node)
    return [(batch, channels, *(1 for _ in spatial))]


def _transpose(known: Tensors, node: Node) -> list[Size]:
    size = known.of(node)
    order = node.attributes.get("perm", tuple(reversed(range(len(size)))))
    if sorted(order) != list(range(len(size))):
        raise ValueError(f"an order {order}")
    return [tuple(size[axis] for axis in order)]


def _reshape(known: Tensors, node: Node) -> list[Size]:
    size, wanted = known.of(node), known.value(node, 1) or []
    if not node.attributes.get("allowzero"):
        wanted = [size[i] if width == 0 else width for i, width in enumerate(wanted)]
    count = math.prod(size)
    if -1 in wanted:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = count // rest if rest else 0
    if math.prod(wanted) != count:
        raise ValueError(f"{size} to {wanted}")
    return [tuple(wanted)]


def _flatten(known: Tensors, node: Node) -> list[Size]:
    size, axis = known.of(node), node.attributes.get("axis", 1)
    return [(math.prod(size[:axis]), math.prod(size[axis:]))]


def _squeeze(known: Tensors, node: Node) -> list[Size]:
    size = known.of(node)
    axes = known.axes(node, 1, len(size))
    if axes is None:
        return [tuple(width for width in size if width != 1)]
    if any(size[axis] != 1 for axis in axes):
        raise ValueError("an axis that isn't 1")
    return [tuple(width for i, width in enumerate(size) if i not in axes)]


def _unsqueeze(known: Tensors, node: Node) -> list[Size]:
    size = list(known.of(node))
    axes = known.axes(node, 1, len(size) + len(known.value(node, 1) or [])) or []
    for axis in sorted(axes):
        size.insert(axis, 1)
    return [tuple(size)]


def _slice(known: Tensors, node: Node) -> list[Size]:
    size = list(known.of(node))
    begins, ends = known.value(node, 1) or [], known.value(node, 2) or []
    axes = known.axes(node, 3, len(size)) or list(range(len(begins)))
    steps = known.value(node, 4) or [1] * len(begins)
    for begin, end, axis, step in zip(begins, ends, axes, steps, strict=True):
        size[axis] = len(range(*slice(begin, end, step).indices(size[axis])))
    return [tuple(size)]


def _split(known: Tensors, node: Node) -> list[Size]:
    size, axis = known.of(node), int(node.attributes.get("axis", 0))
    widths = known.value(node, 1)
    if widths is None:
        parts = len(node.outputs)
        share = -(-size[axis] // parts)
        widths = [min(share, size[axis] - i * share) for i in range(parts)]
    axis %= len(size)
    if sum(widths) != size[axis] or len(widths) != len(node.outputs):
        raise ValueError(f"{size[axis]} to {widths}")
    return [(*size[:axis], width, *size[axis + 1 :]) for width in widths]


def _concat(known: Tensors, node: Node) -> list[Size]:
    sizes = [known.sizes[name] for name in node.inputs]
    axis = int(node.attributes["axis"]) % len(sizes[0])
    rest = {(*size[:axis], *size[axis + 1 :]) for size in sizes}
    if len(rest) > 1:
        raise ValueError("sizes that differ")
    first = sizes[0]
    return [(*first[:axis], sum(size[axis] for size in sizes), *first[axis + 1 :])]


def _reduce(known: Tensors, node: Node) -> list[Size]:
    size = known.of(node)
    axes = known.axes(node, 1, len(size))
    if not axes:
        axes = [] if node.attributes.get("noop_with_empty_axes") else list(range(len(size)))
    if node.attributes.get("keepdims", 1):
        return [tuple(1 if i in axes else width for i, width in enumerate(size))]
    return [tuple(width for i, width in enumerate(size) if i not in axes)]


def _pad(known: Tensors, node: Node) -> list[Size]:
    size, pads = list(known.of(node)), known.value(node, 1) or []
    axes = known.axes(node, 3, len(size)) or list(range(len(size)))
    for i, axis in enumerate(axes):
        size[axis] += pads[i] + pads[i + len(axes)]
    return [tuple(size)]


def _gather(known: Tensors, node: Node) -> list[Size]:
    size, axis = known.of(node), int(node.attributes.get("axis", 0))
    axis %= len(size)
    return [(*size[:axis], *known.of(node, 1), *size[axis + 1 :])]


def _expand(known: Tensors, node: Node) -> list[Size]:
    return [meet(known.of(node), tuple(known.value(node, 1) or []))]


def _constant(known: Tensors, node: Node) -> list[Size]:
    ((name, value),) = node.attributes.items()
    if isinstance(value, Constant):
        known.learn(node.outputs[0], value)
        return [value.shape]
    if name not in ("value_int", "value_ints", "value_float"):
        raise ValueError(f"a constant's {name}")
    if name != "value_float":
        known.values[node.outputs[0]] = np.array(value, np.int64)
    return [(len(value),) if isinstance(value, tuple) else ()]


def _shape(known: Tensors, node: Node) -> list[Size]:
    size = known.of(node)
    told = size[node.attributes.get("start", 0) : node.attributes.get("end", len(size))]
    known.values[node.outputs[0]] = np.array(told, np.int64)
    return [(len(told),)]


def _range(known: Tensors, node: Node) -> list[Size]:
    begin, end, step = ((known.value(node, i) or [])[0] for i in range(3))
    return [(max(0, -(-(end - begin) // step)),)]


#: What comes out has the size of the first input.
ALIKE = (
    "Abs BatchNormalization Cast Ceil Celu Clip Cos DequantizeLinear Elu Erf Exp Floor Gelu "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization "
    "LeakyRelu Log LogSoftmax Mish Neg Not QuantizeLinear Reciprocal Relu Round ScatterElements "
    "ScatterND Selu Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Tanh"
)
#: Inputs of different sizes meet as in numpy.
MEETING = (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mul Or Pow PRelu Sub "
    "Sum Where Xor"
)
REDUCING = "ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(ALIKE.split(), _alike),
    **dict.fromkeys(MEETING.split(), _meet),
    **dict.fromkeys(REDUCING.split(), _reduce),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool"), _slide),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _pool_all),
    "Concat": _concat,
    "Constant": _constant,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _multiply,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
