"""Which layers go back to float where an int8 bundle misses the gate."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mer_calibration import Layer
from mer_runtime.bundle import ENCODER, HEAD

#: How many layers of the encoder may go back before there is nothing left to win.
MOST_FLOAT_LAYERS = 12


def choose_float_layers(layers: Sequence[Layer], kept: Collection[str]) -> list[str]:
    """The next layers to compute in float; none at the end.

    First the head, all of it: that costs 2 % of a window's time, a layer of the encoder more. Then
    the encoder's layers, those with the least signal to quantisation noise first.

    Args:
        layers: a calibration's report.
        kept: those that are in float already.
    """
    left = [layer for layer in layers if layer.name not in kept]
    head = [layer.name for layer in left if layer.graph == HEAD]
    if head:
        return head
    encoder = {layer.name for layer in layers if layer.graph == ENCODER}
    if not left or len(encoder.intersection(kept)) >= MOST_FLOAT_LAYERS:
        return []
    return [min(left, key=lambda layer: layer.sqnr).name]
