"""Bias correction of the features: what rounding adds to them on average is taken back.

Errors of rounding that samples have in common don't vanish in a window's mean. What is left of
them at the end is a constant, a value for each output channel, and costs an addition to take back
(Nagel et al., ICCV 2019, section 4.2, of the last layer alone).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from mer_calibration.errors import CalibrationError
from mer_calibration.measure.observation import Feed, open_session

#: Digits after the point that are kept: finer than any grid of what is corrected.
DIGITS = 6


def measure_bias(
    model: ModelProto, quantised: ModelProto, feeds: Iterable[Feed], *, threads: int | None = None
) -> tuple[float, ...]:
    """What to add to the output (n, F) of ``quantised`` so that its mean is that of ``model``.

    Args:
        model: the float graph; both have one output.
        feeds: the samples; each row of their outputs weighs the same.

    Returns:
        F numbers, to ``DIGITS``.

    Raises:
        CalibrationError: there is no sample, one doesn't fit a graph, or a value isn't finite.
    """
    sessions = [open_session(one, threads) for one in (model, quantised)]
    total: NDArray[np.float64] | None = None
    rows = 0
    for feed in feeds:
        try:
            exact, rounded = (np.asarray(one.run(None, dict(feed))[0]) for one in sessions)
        except Exception as error:  # its exceptions share no base class of its own
            raise CalibrationError(f"the graphs can't be run on a sample: {error}") from error
        difference = (exact.astype(np.float64) - rounded).sum(axis=0)
        total = difference if total is None else total + difference
        rows += len(exact)
    if total is None or not rows:
        raise CalibrationError("the calibration set is empty: give at least one sample")
    if not np.isfinite(total).all():
        raise CalibrationError("the bias of the graph's output is not finite")
    return tuple((total / rows).round(DIGITS).tolist())


def correct_bias(model: ModelProto, correction: Sequence[float]) -> ModelProto:
    """``model`` with ``correction`` (F,) added to its only output (n, F), in float."""
    corrected = ModelProto()
    corrected.CopyFrom(model)
    graph = corrected.graph
    (output,) = (value.name for value in graph.output)
    raw = f"{output}_uncorrected"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == output:
                    names[i] = raw
    graph.initializer.append(
        numpy_helper.from_array(np.array(correction, np.float32), f"{output}_correction")
    )
    graph.node.append(
        helper.make_node("Add", [raw, f"{output}_correction"], [output], f"{output}_add")
    )
    return corrected
