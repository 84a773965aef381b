"""The ratios that README tells, and what is to be reached on each kind of processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Contenders of ``ia-compact`` have names that begin so.
COMPACT = "compact-"
#: For a goal that holds on every kind: no instruction for int8 is in what it compares.
ANY = "any"


@dataclass(frozen=True)
class Ratio:
    """How many times faster one task is than another; both are ``contender/task``."""

    name: str
    slow: str
    fast: str


@dataclass(frozen=True)
class Goal(Ratio):
    """A ratio to reach.

    Attributes:
        goals: what is promised at least and what is hoped for, by kind of processor (see
            ``mer_runtime.engines.processor``) or for ``ANY``.
    """

    goals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def find(self, kind: str) -> tuple[float, float] | None:
        """Least and aim on a kind of processor; None where nothing is promised."""
        return self.goals.get(kind, self.goals.get(ANY))


RATIOS = (
    Goal(
        "OpenVINO int8 bundle against eager float PyTorch",
        "pytorch/window",
        "openvino-int8/window",
        {"vnni": (6.5, 8)},
    ),
    Goal(
        "OpenVINO int8 bundle against OpenVINO f32",
        "untouched-openvino-f32/window",
        "openvino-int8/window",
        {"vnni": (2.8, 3.5), "avx2": (2, 2.4)},
    ),
    Goal(
        "OpenVINO int8 bundle against our graph in OpenVINO f32",
        "openvino-fp32/window",
        "openvino-int8/window",
    ),
    Goal(
        "OpenVINO int8 bundle against NNCF's stock int8",
        "untouched-openvino-nncf/window",
        "openvino-int8/window",
        {"vnni": (1.5, 1.8)},
    ),
    Goal(
        "ONNX Runtime int8 bundle against ONNX Runtime fp32",
        "untouched-onnx-fp32/window",
        "onnx-int8/window",
        {"vnni": (1.6, 2), "avx2": (1.3, 1.6)},
    ),
    Goal(
        "ONNX Runtime int8 bundle against our graph in ONNX Runtime fp32",
        "onnx-fp32/window",
        "onnx-int8/window",
    ),
    Goal(
        "deployment graph against untouched, ONNX Runtime fp32",
        "untouched-onnx-fp32/window",
        "onnx-fp32/window",
        {ANY: (1.2, 1.4)},
    ),
    Goal(
        "deployment graph against untouched, OpenVINO f32",
        "untouched-openvino-f32/window",
        "openvino-fp32/window",
        {ANY: (1.2, 1.4)},
    ),
    Goal(
        "a hop of a stream against the window, ONNX Runtime int8",
        "onnx-int8/window",
        "onnx-int8/hop",
        {ANY: (6, 9)},
    ),
    Goal(
        "a hop of a stream against the window, OpenVINO int8",
        "openvino-int8/window",
        "openvino-int8/hop",
        {ANY: (6, 9)},
    ),
    Goal(
        "`ia-compact` in int8, OpenVINO, against eager float PyTorch of `ia`",
        "pytorch/window",
        "compact-openvino-int8/window",
        {"vnni": (16, 20), "avx2": (10, 14)},
    ),
    Goal(
        "`ia-compact-int8`, ONNX Runtime, against eager float PyTorch of `ia`",
        "pytorch/window",
        "compact-onnx-int8/window",
    ),
    Goal("MFCC against librosa, warm", "mfcc-librosa/mfcc", "mfcc-ours/mfcc", {ANY: (4, 6)}),
)
#: Times the clip's own length, and seconds from a process's start to its answer: least and aim.
REAL_TIME, START = (25, 40), (1.5, 0.8)
#: The first of them for ``ia-compact``.
COMPACT_REAL_TIME = (55, 100)
