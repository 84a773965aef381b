"""ONNX's file format, read as far as it takes to know what a graph would do.

The device has no package ``onnx``, and an engine's parser opens what a graph names. Fields that
``mer-export`` doesn't write (subgraphs, functions, data in other files) are refused, not skipped:
an engine would read them. Numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Fields of a file: ours have 20 000.
MOST_FIELDS = 1 << 21
#: Elements of a constant whose values are wanted: axes, shapes, and where slices begin.
MOST_VALUES = 1024
#: Bytes of each type of element that a constant may have; text isn't among them.
ITEM_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
INT32, INT64 = 6, 7


@dataclass(frozen=True, eq=False)
class Message:
    """Numbers of the fields that a kind of message may have, and what refused ones are called."""

    once: frozenset[int] = frozenset()
    often: frozenset[int] = frozenset()
    refused: Mapping[int, str] = field(default_factory=dict)


def _message(*once: int, often: tuple[int, ...] = (), **refused: str) -> Message:
    named = {int(number[1:]): what for number, what in refused.items()}
    return Message(frozenset(once), frozenset(often), named)


ELSEWHERE = "weights in another file"
MODEL = _message(1, 2, 3, 4, 5, 6, 7, often=(8, 14), _20="training steps", _25="functions")
OPSET = _message(1, 2)
GRAPH = _message(2, 10, often=(1, 5, 11, 12, 13, 14, 16), _15="sparse weights")
NODE = _message(3, 4, 6, 7, often=(1, 2, 5, 9))
ATTRIBUTE = _message(
    1, 2, 3, 4, 5, 13, 20, often=(7, 8, 9), _6="a graph in a graph", _11="graphs in a graph"
)
TENSOR = _message(
    2, 8, 9, 12, 14, often=(1, 4, 5, 7, 10, 11, 16), _6="text as weights", _13=ELSEWHERE
)
VALUE = _message(1, 2, 3, often=(4,))
TYPE = _message(1, 6)
TENSOR_TYPE = _message(1, 2)
SHAPE = _message(often=(1,))
DIMENSION = _message(1, 2, 3)


@dataclass(frozen=True)
class Constant:
    """A constant: its shape, and its values where they are few whole numbers."""

    shape: tuple[int, ...]
    values: NDArray[np.int64] | None


@dataclass(frozen=True)
class Node:
    """One operation; ``attributes`` by name: a number, numbers, a text, or a ``Constant``."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass
class Graph:
    """A graph; None is a size that is left open."""

    opsets: dict[str, int] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    inputs: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


def read_graph(content: bytes) -> Graph:
    """The graph of a file, in time and memory of the file's size.

    Raises:
        ValueError: it is no ONNX, or has what ``mer-export`` doesn't write, in words.
    """
    return _Reader().read(content)


class _Reader:
    def __init__(self) -> None:
        self.left = MOST_FIELDS
        self.graph = Graph()

    def read(self, content: bytes) -> Graph:
        found = False
        for number, value in self._fields(memoryview(content), MODEL):
            if number == 7:
                found = True
                self._read_graph(_bytes(value))
            elif number == 8:
                opset = dict(self._fields(_bytes(value), OPSET))
                self.graph.opsets[_text(opset.get(1, b""))] = _int(opset.get(2, 0))
        if not found:
            raise ValueError("it has no graph")
        return self.graph

    def _read_graph(self, content: memoryview) -> None:
        graph = self.graph
        for number, value in self._fields(content, GRAPH):
            if number == 1:
                graph.nodes.append(self._read_node(_bytes(value)))
            elif number == 5:
                name, constant = self._read_constant(_bytes(value))
                graph.constants[name] = constant
            elif number == 11:
                name, shape = self._read_input(_bytes(value))
                graph.inputs[name] = shape
            elif number == 12:
                graph.outputs.append(self._read_input(_bytes(value))[0])

    def _read_node(self, content: memoryview) -> Node:
        texts: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
        attributes = {}
        for number, value in self._fields(content, NODE):
            if number in texts:
                texts[number].append(_text(value))
            elif number == 5:
                name, attribute = self._read_attribute(_bytes(value))
                attributes[name] = attribute
        return Node(
            "".join(texts[4]), "".join(texts[7]), tuple(texts[1]), tuple(texts[2]), attributes
        )

    def _read_attribute(
        self, content: memoryview
    ) -> tuple[str, int | tuple[int, ...] | str | Constant]:
        name, many = "", list[int]()
        single: int | str | Constant | None = None
        for number, value in self._fields(content, ATTRIBUTE):
            if number == 1:
                name = _text(value)
            elif number == 3:
                single = _int(value)
            elif number == 4:
                single = _text(value)
            elif number == 5:
                single = self._read_constant(_bytes(value))[1]
            elif number == 8:
                many += self._ints(value)
        return name, tuple(many) if single is None else single

    def _read_constant(self, content: memoryview) -> tuple[str, Constant]:
        name, kind, size = "", 0, 0
        shape: list[int] = []
        raw = memoryview(b"")
        given: list[int] = []
        for number, value in self._fields(content, TENSOR):
            if number == 1:
                shape += self._ints(value)
            elif number == 2:
                kind = _int(value)
            elif number == 8:
                name = _text(value)
            elif number == 9:
                raw = _bytes(value)
            elif number == 14 and value != 0:
                raise ValueError(f"it has {ELSEWHERE}")
            elif number in (4, 5, 7, 10, 11):
                size += len(value) if isinstance(value, memoryview) else 1
                if number in (5, 7) and size <= 10 * MOST_VALUES:
                    given += self._ints(value)
        if kind not in ITEM_SIZES or min(shape, default=0) < 0 or len(shape) > 16:
            raise ValueError("it has weights of another kind")
        count = int(np.prod(shape, dtype=object))
        if len(raw) != count * ITEM_SIZES[kind] if len(raw) else size < count:
            raise ValueError("its weights have another number of bytes than they say")
        values = None
        if kind in (INT32, INT64) and count <= MOST_VALUES:
            values = (
                np.frombuffer(raw, np.int32 if kind == INT32 else np.int64).astype(np.int64)
                if len(raw)
                else np.array(given, np.int64)
            )
            if values.size != count:
                raise ValueError("its weights have another number of values than they say")
            values = values.reshape(shape)
        return name, Constant(tuple(shape), values)

    def _read_input(self, content: memoryview) -> tuple[str, tuple[int | None, ...]]:
        value = dict(self._fields(content, VALUE))
        shape: list[int | None] = []
        tensor = dict(self._fields(_bytes(value.get(2, b"")), TYPE))
        sizes = dict(self._fields(_bytes(tensor.get(1, b"")), TENSOR_TYPE))
        for _, one in self._fields(_bytes(sizes.get(2, b"")), SHAPE):
            size = dict(self._fields(_bytes(one), DIMENSION))
            shape.append(_int(size[1]) if 1 in size else None)
        return _text(value.get(1, b"")), tuple(shape)

    def _ints(self, value: int | memoryview) -> list[int]:
        """Whole numbers, alone or packed."""
        if isinstance(value, int):
            return [_int(value)]
        numbers, at = [], 0
        while at < len(value):
            self._count()
            number, at = _varint(value, at)
            numbers.append(_int(number))
        return numbers

    def _fields(
        self, content: memoryview, known: Message
    ) -> Iterator[tuple[int, int | memoryview]]:
        """Number and value of each field: a whole number, or its bytes."""
        at, seen = 0, set[int]()
        while at < len(content):
            self._count()
            key, at = _varint(content, at)
            number, kind = key >> 3, key & 7
            if number not in known.often:
                if number not in known.once or number in seen:
                    what = known.refused.get(number, "a field that isn't known")
                    raise ValueError(f"it has {what}")
                seen.add(number)
            value: int | memoryview
            if kind == 0:
                value, at = _varint(content, at)
            else:
                size = {1: 8, 5: 4}.get(kind, 0)
                if kind == 2:
                    size, at = _varint(content, at)
                elif not size:
                    raise ValueError("it is no ONNX")
                value, at = content[at : at + size], at + size
                if at > len(content):
                    raise ValueError("it is cut short")
            yield number, value

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"it has more than {MOST_FIELDS} fields")


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where the next field is."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise ValueError("it is cut short")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError("it is no ONNX")


def _int(value: int | memoryview | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("it is no ONNX")  # noqa: TRY004  of the file, not of an argument
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: int | memoryview | bytes) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no ONNX")  # noqa: TRY004
    return memoryview(value)


def _text(value: int | memoryview | bytes) -> str:
    return str(_bytes(value), "utf-8")
