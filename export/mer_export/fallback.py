"""Which layers go back to float where an int8 bundle misses the gate."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mer_calibration import Layer
from mer_calibration.trial import Shown
from mer_runtime.bundle import ENCODER, HEAD

#: How many layers of the encoder may go back before there is nothing left to win.
MOST_FLOAT_LAYERS = 12
#: Percent of the error from which on a layer stands out. Where none does, rounding as such is too
#: much, and the head goes back first, all of it: that costs 2 % of a window's time, a layer of the
#: encoder more.
STANDS_OUT = 20.0


def choose_float_layers(
    layers: Sequence[Layer], kept: Collection[str], shown: Shown | None
) -> list[str]:
    """The next layers to compute in float: the costliest one, or the whole head; none at the end.

    Args:
        layers: a calibration's report.
        kept: those that are in float already.
        shown: what was fed where the gate failed, where that is known.
    """
    left = [layer for layer in layers if layer.name not in kept]
    costs = {
        layer.name: layer.shares.get(shown, layer.error_share) if shown else layer.error_share
        for layer in left
    }
    costliest = max(costs, key=costs.__getitem__, default="")
    if not costliest or not costs[costliest]:
        return []
    head = [layer.name for layer in left if layer.graph == HEAD]
    if head and costs[costliest] < STANDS_OUT:
        return head
    encoder = {layer.name for layer in layers if layer.graph == ENCODER}
    if costliest in encoder and len(encoder.intersection(kept)) >= MOST_FLOAT_LAYERS:
        return []
    return [costliest]
