"""The check that lets a bundle be written: its own answers against the float reference's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_export.errors import GateError
from mer_runtime.bundle import Golden, Precision

#: Largest |Δlogit| from the reference on golden inputs, by precision.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3}

Infer = Callable[[NDArray[np.float32] | None, NDArray[np.uint8] | None], NDArray[np.float32]]


@dataclass(frozen=True)
class GateReport:
    """What the gate measured; ``to_dict`` goes into the manifest.

    Attributes:
        kind: ``golden``: the golden inputs alone were compared.
        cases: how many inputs.
        max_difference, mean_difference: |Δlogit| between engine and reference.
        agreement: percent of inputs with the same most probable label.
        tolerance: what ``max_difference`` had to stay within.
    """

    kind: str
    cases: int
    max_difference: float
    mean_difference: float
    agreement: float
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return dataclasses.asdict(self)


def check_golden(golden: Golden, infer: Infer, tolerance: float) -> tuple[Golden, GateReport]:
    """Replay the golden inputs on an engine and compare with the reference.

    Returns:
        The golden set with the engine's answers in it, and the report.

    Raises:
        GateError: an answer isn't finite, or differs from the reference by more than
            ``tolerance``.
    """
    answers = np.stack([infer(*golden.case(i)) for i in range(len(golden.cases))])
    for name, row in zip(golden.cases, answers, strict=True):
        if not np.isfinite(row).all():
            raise GateError(f"the engine's answer to the golden input '{name}' is not finite")
    difference = np.abs(answers - golden.reference)
    worst = int(difference.max(axis=1).argmax())
    report = GateReport(
        kind="golden",
        cases=len(golden.cases),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        agreement=100 * float((answers.argmax(1) == golden.reference.argmax(1)).mean()),
        tolerance=tolerance,
    )
    if report.max_difference > tolerance:
        raise GateError(
            f"the engine differs from the float model by {report.max_difference:.2e} on the golden "
            f"input '{golden.cases[worst]}', more than {tolerance:.0e}: no bundle was written"
        )
    return dataclasses.replace(golden, answers=answers), report
