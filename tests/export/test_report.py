"""What an export says to take on this processor, by what was timed there."""

from __future__ import annotations

import dataclasses

from mer_export import ExportReport
from mer_export.proof.timing import Timing
from mer_runtime.bundle import Precision, Target
from mer_runtime.engines.processor import KIND_TITLES, find_kind, read_instructions
from mer_runtime.intervals import Interval


def advise(
    proved: ExportReport,
    fp32: float,
    instructions: str,
    *,
    target: Target = "onnx",
    precision: Precision = "int8",
) -> str | None:
    """The advice of a bundle that takes 20 ms a window where float32 takes ``fp32``, +- 4 %."""
    gain = Interval(fp32 / 20, 0.96 * fp32 / 20, 1.04 * fp32 / 20)
    timing = Timing(20.0, fp32, 90.0, 2, tuple(instructions.split()), gain=gain)
    report = dataclasses.replace(proved, timing=timing, target=target, precision=precision)
    told = report.advice()
    assert told is None or f"  {told}" in report.format().splitlines()
    return told


def test_gain_is_told_with_what_multiplies(proved: ExportReport) -> None:
    engine = proved.gate.engine
    told = advise(proved, 30, "avx avx2")
    assert told == (
        f"take int8 here (AVX2 without VNNI): 1.50 times as fast as fp32 with {engine} "
        "(95 %: 1.44 to 1.56, 9 rounds); --target openvino gains more"
    )
    told = advise(proved, 30, "avx avx2 avx_vnni", target="openvino")
    assert told == (
        f"take int8 here (VNNI): 1.50 times as fast as fp32 with {engine} "
        "(95 %: 1.44 to 1.56, 9 rounds)"
    )
    # Nobody has compared the engines there.
    assert "openvino" not in str(advise(proved, 30, "asimddp"))


def test_no_gain(proved: ExportReport) -> None:
    """Where the interval of the gain has 1 in it, nothing is claimed."""
    told = advise(proved, 20.4, "avx avx2")
    assert told == (
        "int8 is no faster here (AVX2 without VNNI), as far as this shows: 1.02 times as fast as "
        f"fp32 with {proved.gate.engine} (95 %: 0.98 to 1.06, 9 rounds): take --precision fp32, or "
        "--target openvino, which gains more"
    )
    slower = str(advise(proved, 15, "avx2", target="openvino"))
    assert slower.startswith("int8 is slower here")
    assert slower.endswith("take --precision fp32")


def test_other_precisions(proved: ExportReport) -> None:
    assert advise(proved, 30, "avx2", precision="fp32") is None
    told = advise(proved, 30, "avx2", target="openvino", precision="fp16")
    assert str(told).startswith("take fp16 here: 1.50 times")
    assert dataclasses.replace(proved, timing=None).advice() is None


def test_processor_of_the_timing_is_this_one(proved: ExportReport) -> None:
    assert proved.timing is not None
    assert proved.timing.instructions == read_instructions()
    assert KIND_TITLES[find_kind(read_instructions())] in str(proved.advice())
    assert proved.to_dict()["advice"] == proved.advice()


def test_why_layers_are_in_float(proved: ExportReport) -> None:
    """The head that was asked for, and what the gate needs, are told apart."""
    layers = ("encoder.stem.0.weight", "network.av1.q.weight", "network.va1.q.weight")
    report = dataclasses.replace(proved, float_layers=layers, float_head=layers[1:])
    lines = report.format().splitlines()
    assert "  left in float, as --float-head asks: network.av1.q, network.va1.q" in lines
    assert "  left in float, so that the gate holds: encoder.stem.0" in lines
    assert report.to_dict()["float_head"] == list(layers[1:])


def test_validation_has_clips_intervals_and_three_calibration_errors(proved: ExportReport) -> None:
    text = proved.format()
    both = proved.gate.modalities[0]
    low, high = both.prec1_interval
    assert f"{both.prec1:.2f} ({low:.1f} to {high:.1f})" in text
    for one in proved.gate.modalities:
        assert one.own_temperature == proved.own_temperatures.of(one.modality)
        assert one.temperature == proved.temperatures.of(one.modality)
        cells = (one.ece_own, one.own_temperature, one.ece_float, one.ece, one.temperature)
        shown = [f"{cell:.{digits}f}" for cell, digits in zip(cells, (1, 2, 1, 1, 2), strict=True)]
        assert any(line.split()[-5:] == shown for line in text.splitlines())
    told = proved.to_dict()["gate"]["validation"][0]
    assert told["n"] == both.comparison.n > 0
    assert told["prec1_float_interval"][0] <= told["prec1_float"] <= told["prec1_float_interval"][1]
    assert {"ece_own", "ece_float", "ece"} <= set(told)
