"""The ranges of a graph's activations: the outcome of a calibration, kept as a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import onnx

from mer_calibration.dialects import DIALECTS
from mer_calibration.errors import CalibrationError
from mer_runtime.errors import OutputError

Method = Literal["minmax", "percentile", "entropy", "mse", "wide"]
METHODS: tuple[Method, ...] = get_args(Method)
Number = TypeVar("Number", int, float)

#: What this version writes, and the only one it reads.
FORMAT_VERSION = 3
#: Fields of ONNX messages that say who made a graph and how, not what it computes.
NOTES = frozenset({"doc_string", "metadata_props", "producer_name", "producer_version"})


@dataclass(frozen=True)
class Range:
    """Values that a tensor's grid covers.

    Attributes:
        low, high: the ends; they hold 0.
        method: what chose them.
        seen_low, seen_high: the smallest and largest value of the calibration set.
        clipped: share, 0 to 1, of its values outside ``low`` to ``high``.
    """

    low: float
    high: float
    method: Method
    seen_low: float
    seen_high: float
    clipped: float


@dataclass(frozen=True)
class Ranges:
    """All ranges of one calibration, and what they were made from.

    Attributes:
        graphs: graph's name (``encoder``, ``head``) to ``hash_graph`` of the float graph.
        spec: digest of the preprocessing.
        tensors: graph's name to tensor's name to range.
        exponents: graph's name to layer's name to what its output channels are divided by before
            they are rounded, in eighths of an octave (``mer_calibration.equalisation``); the ranges
            are those of the graph scaled so.
        roundings: graph's name to layer's name to how its weights, so scaled, are rounded
            (``mer_calibration.rounding``).
        pixel_means: average pixel of each colour, 0 to 255.
        shifts: dialect's name to what is added to the features that the encoder puts out in it,
            with ``float_layers`` in float (``mer_calibration.shift``).
        clips: how many clips were used.
        clips_sha256: digest of their ids.
        corpus: what they were taken from.
        float_layers: layers that must stay float for the answers to be as right as the float
            model's, as a proof on a corpus found.
    """

    graphs: Mapping[str, str]
    spec: str
    tensors: Mapping[str, Mapping[str, Range]]
    exponents: Mapping[str, Mapping[str, tuple[int, ...]]]
    roundings: Mapping[str, Mapping[str, str]]
    pixel_means: tuple[float, ...]
    shifts: Mapping[str, tuple[float, ...]]
    clips: int
    clips_sha256: str
    corpus: str
    float_layers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; ``Ranges.from_dict`` reverses it exactly."""
        return {
            "format": FORMAT_VERSION,
            "graphs": dict(self.graphs),
            "spec": self.spec,
            "tensors": {
                graph: {name: dataclasses.asdict(found) for name, found in tensors.items()}
                for graph, tensors in self.tensors.items()
            },
            "exponents": {
                graph: {layer: " ".join(map(str, one)) for layer, one in layers.items()}
                for graph, layers in self.exponents.items()
            },
            "roundings": {graph: dict(layers) for graph, layers in self.roundings.items()},
            "pixel_means": list(self.pixel_means),
            "shifts": {name: " ".join(map(repr, one)) for name, one in self.shifts.items()},
            "clips": self.clips,
            "clips_sha256": self.clips_sha256,
            "corpus": self.corpus,
            "float_layers": list(self.float_layers),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Ranges:
        """Read what ``to_dict`` wrote.

        Raises:
            CalibrationError: a field is missing, unknown, of the wrong type or out of range, or
                another version wrote it.
        """
        version = data.get("format") if isinstance(data, Mapping) else None
        if version != FORMAT_VERSION:
            raise CalibrationError(
                f"ranges of format {version} can't be read (this version reads {FORMAT_VERSION}): "
                "calibrate again"
            )
        fields = _fields(
            {name: value for name, value in data.items() if name != "format"}, cls, "the ranges"
        )
        graphs = _mapping(fields["graphs"], "graphs")
        for name, digest in graphs.items():
            _require(isinstance(digest, str), f"graphs.{name}", "a digest")
        tensors = {
            graph: {
                name: _read_range(value, f"{graph}.{name}")
                for name, value in _mapping(group, f"tensors.{graph}").items()
            }
            for graph, group in _mapping(fields["tensors"], "tensors").items()
        }
        _require(tensors.keys() == graphs.keys(), "tensors", "those of the graphs listed")
        for name in ("spec", "clips_sha256", "corpus"):
            _require(isinstance(fields[name], str), name, "a text")
        clips = fields["clips"]
        _require(type(clips) is int and clips > 0, "clips", "a whole number above 0")
        exponents = {
            graph: {
                layer: _read_numbers(value, f"exponents.{graph}.{layer}", int, "whole numbers")
                for layer, value in _mapping(layers, f"exponents.{graph}").items()
            }
            for graph, layers in _mapping(fields["exponents"], "exponents").items()
        }
        _require(exponents.keys() == graphs.keys(), "exponents", "those of the graphs listed")
        roundings = {
            graph: dict(_mapping(layers, f"roundings.{graph}"))
            for graph, layers in _mapping(fields["roundings"], "roundings").items()
        }
        _require(roundings.keys() == graphs.keys(), "roundings", "those of the graphs listed")
        for graph, layers in roundings.items():
            for name, text in layers.items():
                _require(isinstance(text, str), f"roundings.{graph}.{name}", "a text")
        means = fields["pixel_means"]
        _require(isinstance(means, list), "pixel_means", "a list")
        for mean in means:
            real = isinstance(mean, (int, float)) and not isinstance(mean, bool)
            _require(real and 0 <= mean <= 255, "pixel_means", "numbers from 0 to 255")
        shifts = {
            name: _read_numbers(value, f"shifts.{name}", float, "finite numbers")
            for name, value in _mapping(fields["shifts"], "shifts").items()
        }
        _require(shifts.keys() == DIALECTS.keys(), "shifts", f"those of {', '.join(DIALECTS)}")
        left = fields["float_layers"]
        _require(isinstance(left, list), "float_layers", "a list")
        for layer in left:
            _require(isinstance(layer, str), "float_layers", "names of layers")
        return cls(
            **{
                **fields,
                "float_layers": tuple(left),
                "graphs": dict(graphs),
                "tensors": tensors,
                "exponents": exponents,
                "roundings": roundings,
                "pixel_means": tuple(map(float, means)),
                "shifts": shifts,
            }
        )

    def write(self, path: Path) -> None:
        """Write JSON by a temporary name: the same ranges always give the same bytes.

        Raises:
            OutputError: it can't be written.
        """
        data = json.dumps(
            self.to_dict(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        part = path.with_name(f"{path.name}.part")
        try:
            part.write_text(f"{data}\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise OutputError(path, str(error)) from error

    @classmethod
    def read(cls, path: Path) -> Ranges:
        """Read what ``write`` wrote.

        Raises:
            CalibrationError: the file is missing, damaged, or not one of ranges.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CalibrationError(f"{path} can't be read: {error}") from error
        try:
            return cls.from_dict(data)
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error

    def require(self, graphs: Mapping[str, str], spec: str) -> None:
        """Check that the ranges were made on these float graphs with this preprocessing.

        Raises:
            CalibrationError: they weren't.
        """
        again = "calibrate again: mer-export CHECKPOINT --calibration CACHE"
        for name, digest in sorted(graphs.items()):
            if name not in self.graphs:
                raise CalibrationError(f"there are no ranges of the graph '{name}': {again}")
            if self.graphs[name] != digest:
                raise CalibrationError(
                    f"the ranges were made on another graph '{name}' ({self.graphs[name][:12]}, "
                    f"not {digest[:12]}): {again}"
                )
        if self.spec != spec:
            raise CalibrationError(
                "the ranges were made with another preprocessing spec "
                f"({self.spec[:12]}, not {spec[:12]}): {again}"
            )


def hash_graph(model: onnx.ModelProto) -> str:
    """sha256, in hexadecimal, of a graph: what it computes, not who made it or any notes in it."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    _drop_notes(bare)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _drop_notes(message: Any) -> None:
    """Clear ``NOTES`` in a protobuf message and in all messages that it holds."""
    for field, value in message.ListFields():
        if field.name in NOTES:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for item in (value,) if hasattr(value, "ListFields") else value:
                _drop_notes(item)


def _read_range(value: Any, name: str) -> Range:
    fields = _fields(value, Range, f"the range of {name}")
    _require(fields["method"] in METHODS, f"{name}.method", f"one of {', '.join(METHODS)}")
    numbers = {key: number for key, number in fields.items() if key != "method"}
    for key, number in numbers.items():
        real = isinstance(number, (int, float)) and not isinstance(number, bool)
        _require(real and math.isfinite(number), f"{name}.{key}", "a finite number")
    found = Range(method=fields["method"], **{k: float(n) for k, n in numbers.items()})
    _require(found.low <= 0 <= found.high, f"{name}.low", "at most 0, and high at least 0")
    _require(found.seen_low <= found.seen_high, f"{name}.seen_low", "at most seen_high")
    _require(0 <= found.clipped <= 1, f"{name}.clipped", "0 to 1")
    return found


def _read_numbers(
    value: Any, name: str, kind: Callable[[str], Number], allowed: str
) -> tuple[Number, ...]:
    """Numbers in a text: a number a line would make a long file."""
    _require(isinstance(value, str), name, "a text")
    try:
        numbers = tuple(kind(part) for part in value.split())
    except ValueError:
        raise CalibrationError(f"{name} must be {allowed}: calibrate again") from None
    _require(all(map(math.isfinite, numbers)), name, allowed)
    return numbers


def _fields(data: Any, cls: type[Any], what: str) -> dict[str, Any]:
    """``data`` as an object with just the fields of the dataclass ``cls``."""
    known = {field.name for field in dataclasses.fields(cls)}
    given = _mapping(data, what)
    for name in sorted(known - given.keys()):
        raise CalibrationError(f"{what}: {name} is missing: calibrate again")
    for name in sorted(given.keys() - known):
        raise CalibrationError(f"{what}: {name} is unknown: calibrate again")
    return dict(given)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    _require(isinstance(value, Mapping), name, "an object")
    checked: Mapping[str, Any] = value
    return checked


def _require(holds: bool, name: str, allowed: str) -> None:
    if not holds:
        raise CalibrationError(f"{name} must be {allowed}: calibrate again")
