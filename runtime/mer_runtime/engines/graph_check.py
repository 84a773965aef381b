"""Whether a graph is one that ``mer-export`` can have written: known before an engine sees it.

A graph is a program from others' hands. Here it has operators of ``RULES`` alone, and what they
would take in memory and time is added up from the sizes of its inputs.
"""

from __future__ import annotations

import math

from mer_runtime.engines.graph_rules import RULES
from mer_runtime.engines.graph_tensors import Tensors, follow
from mer_runtime.engines.wire import Graph, Node, read_graph

#: Of the operators' own set. Ours are written in 18 and 19, and from there the rules hold.
OPSETS = range(18, 26)
OWN_DOMAINS = ("", "ai.onnx")
MOST_NODES = 20_000
#: Elements that are needed at once, for each crop: VGG-16 has 2^22.7.
MOST_HELD = 1 << 23
#: Products for a window, where an element that takes none counts ``PLAIN``: ViT-B/16 has 2^38.
MOST_WORK, PLAIN = 1 << 39, 64


def check_graph(content: bytes, crops: int) -> None:
    """See that a graph is harmless.

    Args:
        content: an ONNX file.
        crops: how many go through it at once: what an input leaves open is that many.

    Raises:
        ValueError: what it has that ``mer-export`` doesn't write, or what it takes too much of.
    """
    graph = read_graph(content)
    version = max((graph.opsets.get(domain, 0) for domain in OWN_DOMAINS), default=0)
    if version not in OPSETS:
        raise ValueError(f"it is written in opset {version}, not {OPSETS[0]} to {OPSETS[-1]}")
    if len(graph.nodes) > MOST_NODES:
        raise ValueError(f"it has more than {MOST_NODES} operations")
    known = find_sizes(graph, crops)
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    held = sum(math.prod(known.sizes[name]) for name in graph.inputs)
    plain = 0
    for i, node in enumerate(graph.nodes):
        made = measure_node(node, known)
        held += made
        plain += made
        what = f"its operator {node.operator} takes more"
        if held > MOST_HELD * crops:
            raise ValueError(f"{what} memory than a device has")
        if known.products + PLAIN * plain > MOST_WORK:
            raise ValueError(f"{what} time than a device has")
        done = {*node.inputs, *node.outputs} - graph.constants.keys() - {""}
        held -= sum(math.prod(known.sizes[name]) for name in done if last.get(name, i) == i)


def find_sizes(graph: Graph, crops: int) -> Tensors:
    """What is known of a graph's tensors before its first operation."""
    known = Tensors()
    for name, constant in graph.constants.items():
        known.learn(name, constant)
    for name, shape in graph.inputs.items():
        known.sizes[name] = tuple(crops if size is None else size for size in shape)
    return known


def measure_node(node: Node, known: Tensors) -> int:
    """Learn what an operation makes, and count its elements.

    Raises:
        ValueError: ``mer-export`` doesn't write such an operation.
    """
    rule = RULES.get(node.operator)
    if rule is None or node.domain not in OWN_DOMAINS:
        name = f"{node.domain}.{node.operator}".lstrip(".")
        raise ValueError(f"it has the operator {name[:80]}, which mer-export doesn't write")
    outputs = [name for name in node.outputs if name]
    if not known.sizes.keys().isdisjoint(outputs) or len(set(outputs)) < len(outputs):
        raise ValueError("two of its operations make the same")
    try:
        for name in filter(None, node.inputs):
            known.sizes[name]  # what is made later, or never, is no input
        found = rule(known, node)
        if len(found) == 1:  # what else some tell, such as a mean, is no larger
            found *= len(node.outputs)
        sizes = dict(zip(node.outputs, found, strict=True))
        known.sizes |= {name: sizes[name] for name in outputs}
        follow(known, node)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"one of its {node.operator} isn't as mer-export writes it") from error
    if any(size < 0 for shape in sizes.values() for size in shape):
        raise ValueError(f"one of its {node.operator} isn't as mer-export writes it")
    return sum(math.prod(sizes[name]) for name in outputs)
