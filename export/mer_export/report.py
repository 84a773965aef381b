"""What an export made, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_calibration import Layer, format_layers, layers_to_dicts
from mer_export.proof.gate import GateReport
from mer_export.proof.timing import Timing
from mer_export.targets import find_target
from mer_runtime.bundle import Precision, Target
from mer_runtime.engines.processor import KIND_TITLES, find_kind

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
        temperature: what logits are divided by before softmax.
        layers: the calibration's report per layer, where one was made.
        float_layers: layers that went back to float so that the gate held.
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
    temperature: float
    layers: tuple[Layer, ...]
    float_layers: tuple[str, ...]
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
            "temperature": self.temperature,
            "layers": layers_to_dicts(self.layers),
            "float_layers": list(self.float_layers),
            "timing": self.timing.to_dict() if self.timing else None,
            "advice": self.advice(),
            "face_detector": self.face_detector,
        }

    def advice(self) -> str | None:
        """What to take on this processor, by what was timed; None for float32."""
        timing = self.timing
        if timing is None or timing.engine_fp32 is None or self.precision == "fp32":
            return None
        kind = find_kind(timing.instructions)
        here = f"here ({KIND_TITLES[kind]})" if self.precision == "int8" else "here"
        faster = self.target == "onnx" and kind in OPENVINO_GAINS
        if timing.gains:
            gain = timing.engine_fp32 / timing.engine
            return (
                f"take {self.precision} {here}: {gain:.2f} times as fast as fp32 with "
                f"{self.gate.engine}{'; --target openvino gains more' if faster else ''}"
            )
        return (
            f"{self.precision} is no faster than fp32 with {self.gate.engine} {here}: take "
            f"--precision fp32{', or --target openvino, which gains more' if faster else ''}"
        )

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
        if self.float_layers:
            named = ", ".join(self.float_layers[:NAMED_LAYERS])
            more = len(self.float_layers) - NAMED_LAYERS
            if more > 0:
                named += f" and {more} more"
            lines.append(f"  left in float, so that the gate holds: {named}")
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

    def _format_validation(self) -> list[str]:
        if not self.gate.modalities:
            return []
        heads = (
            "validation", "prec1 float", self.precision, "prec5 float", self.precision, "agree",
            "flips", "p", "95 % of Δprec1", "max|Δ|", "mean|Δ|", "ECE float", self.precision,
        )  # fmt: skip
        rows: list[tuple[str, ...]] = [heads]
        for one in self.gate.modalities:
            paired = one.comparison
            rows.append(
                (
                    one.modality,
                    f"{one.prec1_float:.2f}",
                    f"{one.prec1:.2f}",
                    f"{one.prec5_float:.2f}",
                    f"{one.prec5:.2f}",
                    f"{paired.agreement:.2f}",
                    f"+{paired.only_a} -{paired.only_b}",
                    f"{paired.mcnemar_p:.2f}",
                    f"{paired.interval[0]:+.2f} to {paired.interval[1]:+.2f}",
                    f"{paired.max_logit_difference:.2f}",
                    f"{paired.mean_logit_difference:.3f}",
                    f"{one.ece_float:.1f}",
                    f"{one.ece:.1f}",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
