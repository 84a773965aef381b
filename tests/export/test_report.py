"""What an export says to take on this processor, by what was timed there."""

from __future__ import annotations

import dataclasses

from mer_export import ExportReport
from mer_export.proof.timing import Timing
from mer_runtime.bundle import Precision, Target
from mer_runtime.engines.processor import KIND_TITLES, find_kind, read_instructions


def advise(
    proved: ExportReport,
    fp32: float,
    instructions: str,
    *,
    target: Target = "onnx",
    precision: Precision = "int8",
) -> str | None:
    """The advice of a bundle that takes 20 ms a window where float32 takes ``fp32``."""
    timing = Timing(20.0, fp32, 90.0, 2, tuple(instructions.split()))
    report = dataclasses.replace(proved, timing=timing, target=target, precision=precision)
    told = report.advice()
    assert told is None or f"  {told}" in report.format().splitlines()
    return told


def test_gain_is_told_with_what_multiplies(proved: ExportReport) -> None:
    engine = proved.gate.engine
    told = advise(proved, 30, "avx avx2")
    assert told == (
        f"take int8 here (AVX2 without VNNI): 1.50 times as fast as fp32 with {engine}; "
        "--target openvino gains more"
    )
    told = advise(proved, 30, "avx avx2 avx_vnni", target="openvino")
    assert told == f"take int8 here (VNNI): 1.50 times as fast as fp32 with {engine}"
    # Nobody has compared the engines there.
    assert "openvino" not in str(advise(proved, 30, "asimddp"))


def test_no_gain(proved: ExportReport) -> None:
    told = advise(proved, 20.9, "avx avx2")
    assert told == (
        f"int8 is no faster than fp32 with {proved.gate.engine} here (AVX2 without VNNI): take "
        "--precision fp32, or --target openvino, which gains more"
    )
    assert str(advise(proved, 15, "avx2", target="openvino")).endswith("take --precision fp32")


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
