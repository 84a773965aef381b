"""What an export made, as data and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_calibration import Layer, format_layers, layers_to_dicts
from mer_calibration.graph.naming import layer_name
from mer_export.proof.outcome import GateReport
from mer_export.proof.timing import Timing
from mer_export.targets import find_target
from mer_runtime.bundle import Precision, Target
from mer_runtime.engines.processor import KIND_TITLES, find_kind
from mer_runtime.feeds import Temperatures

#: Kinds of processor on which ``make bench`` saw OpenVINO gain more by int8 than ONNX Runtime.
OPENVINO_GAINS = ("vnni", "avx2")
#: Layers in float that a report for readers names; its JSON names all.
NAMED_LAYERS = 3


@dataclass(frozen=True)
class ExportReport:
    """What an export made.

    Attributes:
        bundle: the folder.
        size: bytes of all its files.
        graph_size: bytes of the graphs' files.
        engine_size: bytes of engines that were built ahead of time; 0 where there are none.
        float_size: of those, bytes of the weights of ``float_layers``; the rest is what a fully
            quantised graph takes.
        gate: what was compared, and how well it agreed.
        clips: how many clips int8's ranges come from; None for other precisions.
        temperatures: what logits are divided by before softmax.
        layers: the calibration's report per layer, where one was made.
        float_layers: layers in float: those that went back to it so that the gate held, now or in
            the calibration that the ranges come from, and ``float_head``.
        float_head: layers in float only because that was asked for.
        own_temperatures: the checkpoint's.
        timing: None where the target's engine wasn't run.
        face_detector: whether a YuNet file is in it.
    """

    bundle: Path
    target: Target
    precision: Precision
    size: int
    graph_size: int
    engine_size: int
    float_size: int
    gate: GateReport
    clips: int | None
    temperatures: Temperatures
    layers: tuple[Layer, ...]
    float_layers: tuple[str, ...]
    float_head: tuple[str, ...]
    own_temperatures: Temperatures
    timing: Timing | None
    face_detector: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-export --json`` prints."""
        return {
            "bundle": str(self.bundle),
            "target": self.target,
            "precision": self.precision,
            "size": self.size,
            "graph_size": self.graph_size,
            "engine_size": self.engine_size,
            "float_size": self.float_size,
            "gate": self.gate.to_dict(),
            "clips": self.clips,
            "temperatures": self.temperatures.to_dict(),
            "layers": layers_to_dicts(self.layers),
            "own_temperatures": self.own_temperatures.to_dict(),
            "float_layers": list(self.float_layers),
            "float_head": list(self.float_head),
            "timing": self.timing.to_dict() if self.timing else None,
            "advice": self.advice(),
            "face_detector": self.face_detector,
        }

    def advice(self) -> str | None:
        """What to take on this processor, by what was timed; None for float32."""
        timing = self.timing
        if timing is None or timing.gain is None or self.precision == "fp32":
            return None
        kind, gain = find_kind(timing.instructions), timing.gain
        here = f"here ({KIND_TITLES[kind]})" if self.precision == "int8" else "here"
        faster = self.target == "onnx" and kind in OPENVINO_GAINS
        measured = (
            f"{gain.median:.2f} times as fast as fp32 with {self.gate.engine} "
            f"(95 %: {gain.low:.2f} to {gain.high:.2f}, {timing.rounds} rounds)"
        )
        if timing.gains:
            more = "; --target openvino gains more" if faster else ""
            return f"take {self.precision} {here}: {measured}{more}"
        seen, doubt = ("slower", "") if gain.high < 1 else ("no faster", ", as far as this shows")
        more = ", or --target openvino, which gains more" if faster else ""
        return f"{self.precision} is {seen} {here}{doubt}: {measured}: take --precision fp32{more}"

    def format(self) -> str:
        """Five lines, and where there was a corpus a table."""
        golden, timing = self.gate.golden, self.timing
        detector = "YuNet inside" if self.face_detector else "no face detector inside"
        lines = [
            f"Exported {self.target} {self.precision} to {self.bundle}",
            f"  {self._format_sizes()}, bundle {self.size / 1e6:.1f} MB, {detector}",
            f"  gate: {golden.cases} golden inputs answered by {self.gate.engine}, "
            f"max |Δlogit| {golden.max_difference:.1e} (at most {golden.tolerance:.2g}), "
            f"same label in {golden.agreement:.0f} %",
        ]
        if self.clips is not None:
            made = "made now" if self.layers else "of an earlier calibration"
            lines.insert(2, f"  ranges {made}, on {self.clips} clips of training actors")
        lines += [f"  {line}" for line in self._format_validation()]
        if timing is not None:
            against = [f"{timing.pytorch:.1f} ms in PyTorch"]
            if timing.engine_fp32 is not None:
                against.insert(0, f"{timing.engine_fp32:.1f} ms in fp32")
            lines.append(
                f"  a window takes {timing.engine:.1f} ms, {', '.join(against)} "
                f"(medians, {timing.threads} threads)"
            )
        lines += [f"  {line}" for line in self._format_float_layers()]
        advice = self.advice()
        if advice:
            lines.append(f"  {advice}")
        lines.append("  " + find_target(self.target).next_step.format(bundle=self.bundle))
        return "\n".join(lines)

    def format_layers(self) -> str:
        """The calibration's table per layer."""
        return format_layers(self.layers)

    def _format_sizes(self) -> str:
        text = f"graphs {self.graph_size / 1e6:.2f} MB"
        count = len(self.float_layers)
        if count:
            layers = f"{count} {'layer' if count == 1 else 'layers'}"
            text += f", {self.float_size / 1e6:.2f} MB of it weights of {layers} in float (fp16)"
        if self.engine_size:
            text += f", engines {self.engine_size / 1e6:.1f} MB"
        return text

    def _format_float_layers(self) -> list[str]:
        needed = [name for name in self.float_layers if name not in self.float_head]
        lines = []
        for why, found in (
            ("as --float-head asks", self.float_head),
            ("so that the gate holds", needed),
        ):
            if found:
                named = ", ".join(map(layer_name, found[:NAMED_LAYERS]))
                more = len(found) - NAMED_LAYERS
                named += f" and {more} more" if more > 0 else ""
                lines.append(f"left in float, {why}: {named}")
        return lines

    def _format_validation(self) -> list[str]:
        """Two tables of the validation clips: how right, and how alike and how sure."""
        if not self.gate.modalities:
            return []
        right: list[tuple[str, ...]] = [
            ("prec1 and prec5, %", "clips", "float (95 %)", f"{self.precision} (95 %)",
             "prec5 float", self.precision, "flips", "p", "95 % of Δprec1"),
        ]  # fmt: skip
        alike: list[tuple[str, ...]] = [
            ("likeness, confidence", "agree, % (95 %)", "max|Δ|", "mean|Δ|",
             "ECE float", "at T", "ECE float", self.precision, "at T"),
        ]  # fmt: skip
        for one in self.gate.modalities:
            paired = one.comparison
            right.append(
                (
                    one.modality,
                    str(paired.n),
                    _format_percent(one.prec1_float, one.prec1_float_interval),
                    _format_percent(one.prec1, one.prec1_interval),
                    f"{one.prec5_float:.2f}",
                    f"{one.prec5:.2f}",
                    f"+{paired.only_a} -{paired.only_b}",
                    f"{paired.mcnemar_p:.2f}",
                    f"{paired.interval[0]:+.2f} to {paired.interval[1]:+.2f}",
                )
            )
            alike.append(
                (
                    one.modality,
                    _format_percent(paired.agreement, one.agreement_interval),
                    f"{paired.max_logit_difference:.2f}",
                    f"{paired.mean_logit_difference:.3f}",
                    f"{one.ece_own:.1f}",
                    f"{one.own_temperature:.2f}",
                    f"{one.ece_float:.1f}",
                    f"{one.ece:.1f}",
                    f"{one.temperature:.2f}",
                )
            )
        heading = "validation clips; ECE is the calibration error at a temperature T:"
        return [heading, *_align(right), *_align(alike)]


def _format_percent(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.2f} ({interval[0]:.1f} to {interval[1]:.1f})"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
