"""The moving average of a network's weights, which training keeps beside them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def move_average(
    averages: Iterable[Tensor], current: Iterable[Tensor], decay: float, done: int
) -> None:
    """Move each average towards the current value; a count of batches takes its value.

    The start doesn't hold it back: the decay grows from 0.1 to ``decay`` over the first steps.

    Args:
        done: steps before this one.
    """
    share = 1 - min(decay, (1 + done) / (10 + done))
    for mean, new in zip(averages, current, strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, share)
        else:
            mean.copy_(new)
