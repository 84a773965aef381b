"""What a calibration found, kept as a file: factors of channels, roundings, ranges by dialect."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import onnx

from mer_calibration.errors import CalibrationError
from mer_calibration.fields import (
    read_fields,
    read_mapping,
    read_number,
    read_number_fields,
    read_numbers,
    require,
)
from mer_calibration.graph.grid import Range
from mer_calibration.graph.weights import Rounding
from mer_calibration.measure.noise import LogitNoise, Noise
from mer_runtime.documents import read_json
from mer_runtime.feeds import MODALITIES
from mer_runtime.files import write_file

Value = TypeVar("Value")

#: What this version writes, and the only one it reads.
FORMAT_VERSION = 1
#: Fields of ONNX messages that say who made a graph and how, not what it computes.
NOTES = frozenset({"doc_string", "metadata_props", "producer_name", "producer_version"})
AGAIN = "calibrate again: mer-export CHECKPOINT --calibration CACHE"


@dataclass(frozen=True)
class DialectRanges:
    """What belongs to the integers of one dialect.

    Attributes:
        tensors: graph's name to tensor's name to range.
        bias_correction: what is added to the features that the encoder puts out
            (``mer_calibration.measure.bias_correction``).
        float_layers: layers that must stay float for the answers to be as right as the float
            model's, as a proof on a corpus found.
        noise: what rounding adds to the answers, with ``float_layers`` in float.
    """

    tensors: Mapping[str, Mapping[str, Range]]
    bias_correction: tuple[float, ...]
    float_layers: tuple[str, ...]
    noise: Noise


@dataclass(frozen=True)
class Ranges:
    """All that one calibration found, and what it was made from.

    Attributes:
        graphs: graph's name (``encoder``, ``head``) to ``hash_graph`` of the float graph.
        spec: digest of the preprocessing.
        exponents: graph's name to layer's name to what its output channels are divided by before
            they are rounded, in eighths of an octave (``mer_calibration.measure.equalisation``);
            the ranges are those of the graph scaled so.
        roundings: graph's name to layer's name to how its weights, so scaled, are rounded.
        pixel_means: average pixel of each colour, 0 to 255.
        dialects: dialect's name to what belongs to it.
        clips: how many clips were used.
        clips_sha256: digest of their ids.
        corpus: what they were taken from.
    """

    graphs: Mapping[str, str]
    spec: str
    exponents: Mapping[str, Mapping[str, tuple[int, ...]]]
    roundings: Mapping[str, Mapping[str, Rounding]]
    pixel_means: tuple[float, ...]
    dialects: Mapping[str, DialectRanges]
    clips: int
    clips_sha256: str
    corpus: str

    def of(self, dialect: str) -> DialectRanges:
        """What belongs to the integers of ``dialect``.

        Raises:
            CalibrationError: the calibration knew no such dialect.
        """
        if dialect not in self.dialects:
            known = ", ".join(sorted(self.dialects))
            raise CalibrationError(f"there are no ranges for {dialect}, only for {known}: {AGAIN}")
        return self.dialects[dialect]

    def replace(self, dialect: str, found: DialectRanges) -> Ranges:
        """The same with something else for one dialect."""
        return dataclasses.replace(self, dialects={**self.dialects, dialect: found})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; ``Ranges.from_dict`` reverses it exactly."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "format": FORMAT_VERSION,
            "exponents": _map(self.exponents, _join),
            "roundings": _map(
                self.roundings, lambda one: {"scales": _join(one.stretches), "steps": one.steps}
            ),
            "pixel_means": list(self.pixel_means),
            "dialects": {
                name: {
                    "tensors": _map(one.tensors, dataclasses.asdict),
                    "bias_correction": _join(one.bias_correction),
                    "float_layers": list(one.float_layers),
                    "noise": dataclasses.asdict(one.noise),
                }
                for name, one in self.dialects.items()
            },
        }

    @classmethod
    def from_dict(cls, data: Any) -> Ranges:
        """Read what ``to_dict`` wrote.

        A file may lack dialects (``of`` tells who asks for one), and have others than ``DIALECTS``:
        each stands by itself, so that one that nobody here knows is kept and left alone.

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
        fields = read_fields(
            {name: value for name, value in data.items() if name != "format"}, cls, "the ranges"
        )
        graphs = read_mapping(fields["graphs"], "graphs")
        for name, digest in graphs.items():
            require(isinstance(digest, str), f"graphs.{name}", "a digest")
        for name in ("spec", "clips_sha256", "corpus"):
            require(isinstance(fields[name], str), name, "a text")
        clips, means = fields["clips"], fields["pixel_means"]
        require(type(clips) is int and clips > 0, "clips", "a whole number above 0")
        require(isinstance(means, list), "pixel_means", "a list")
        for mean in means:
            require(0 <= read_number(mean, "pixel_means") <= 255, "pixel_means", "from 0 to 255")
        dialects = {
            name: _read_dialect(value, f"dialects.{name}", graphs)
            for name, value in read_mapping(fields["dialects"], "dialects").items()
        }
        read = {
            "graphs": dict(graphs),
            "exponents": _read_layers(
                fields["exponents"],
                "exponents",
                graphs,
                lambda value, name: read_numbers(value, name, int, "whole numbers"),
            ),
            "roundings": _read_layers(fields["roundings"], "roundings", graphs, _read_rounding),
            "pixel_means": tuple(map(float, means)),
            "dialects": dialects,
        }
        return cls(**{**fields, **read})

    def write(self, path: str | Path) -> None:
        """Write JSON: the same ranges always give the same bytes.

        Raises:
            OutputError: it can't be written.
        """
        data = json.dumps(
            self.to_dict(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        write_file(Path(path), f"{data}\n")

    @classmethod
    def read(cls, path: str | Path) -> Ranges:
        """Read what ``write`` wrote.

        Raises:
            CalibrationError: the file is missing, damaged, or not one of ranges.
        """
        try:
            data = read_json(Path(path))
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
        for name, digest in sorted(graphs.items()):
            if name not in self.graphs:
                raise CalibrationError(f"there are no ranges of the graph '{name}': {AGAIN}")
            if self.graphs[name] != digest:
                raise CalibrationError(
                    f"the ranges were made on another graph '{name}' ({self.graphs[name][:12]}, "
                    f"not {digest[:12]}): {AGAIN}"
                )
        if self.spec != spec:
            raise CalibrationError(
                "the ranges were made with another preprocessing spec "
                f"({self.spec[:12]}, not {spec[:12]}): {AGAIN}"
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


def _map(
    groups: Mapping[str, Mapping[str, Value]], tell: Callable[[Value], Any]
) -> dict[str, dict[str, Any]]:
    return {
        graph: {name: tell(value) for name, value in group.items()}
        for graph, group in groups.items()
    }


def _join(numbers: tuple[int, ...] | tuple[float, ...]) -> str:
    """Numbers in a text: a number a line would make a long file."""
    return " ".join(map(repr, numbers))


def _read_dialect(value: Any, name: str, graphs: Mapping[str, Any]) -> DialectRanges:
    fields = read_fields(value, DialectRanges, name)
    left = fields["float_layers"]
    require(isinstance(left, list), f"{name}.float_layers", "a list")
    for layer in left:
        require(isinstance(layer, str), f"{name}.float_layers", "names of layers")
    noise = read_fields(fields["noise"], Noise, f"{name}.noise")
    logits = read_mapping(noise["logits"], f"{name}.noise.logits")
    require(set(logits) <= set(MODALITIES), f"{name}.noise.logits", f"of {', '.join(MODALITIES)}")
    return DialectRanges(
        tensors=_read_layers(fields["tensors"], f"{name}.tensors", graphs, _read_range),
        bias_correction=read_numbers(
            fields["bias_correction"], f"{name}.bias_correction", float, "finite numbers"
        ),
        float_layers=tuple(left),
        noise=Noise(
            read_number(noise["sqnr"], f"{name}.noise.sqnr"),
            {
                shown: LogitNoise(
                    **read_number_fields(logits[shown], LogitNoise, f"{name}.noise.logits.{shown}")
                )
                for shown in MODALITIES
                if shown in logits
            },
        ),
    )


def _read_layers(
    value: Any,
    name: str,
    graphs: Mapping[str, Any],
    read: Callable[[Any, str], Value],
) -> dict[str, dict[str, Value]]:
    """By graph and layer or tensor."""
    found = {
        graph: {
            one: read(content, f"{name}.{graph}.{one}")
            for one, content in read_mapping(group, f"{name}.{graph}").items()
        }
        for graph, group in read_mapping(value, name).items()
    }
    require(found.keys() == graphs.keys(), name, "those of the graphs listed")
    return found


def _read_rounding(value: Any, name: str) -> Rounding:
    given = read_mapping(value, name)
    require(given.keys() == {"scales", "steps"}, name, "scales and steps")
    require(isinstance(given["steps"], str), f"{name}.steps", "a text")
    stretches = read_numbers(given["scales"], f"{name}.scales", int, "whole numbers")
    return Rounding(stretches, given["steps"])


def _read_range(value: Any, name: str) -> Range:
    found = Range(**read_number_fields(value, Range, name))
    require(found.low <= 0 <= found.high, f"{name}.low", "at most 0, and high at least 0")
    require(found.seen_low <= found.seen_high, f"{name}.seen_low", "at most seen_high")
    require(0 <= found.clipped <= 1, f"{name}.clipped", "0 to 1")
    return found
