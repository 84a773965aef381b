"""The order of channels that makes shuffles unnecessary, padded to what engines compute in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Convolutions give multiples of so many channels, dead ones among them: engines compute in such
#: blocks, and ONNX Runtime 1.23 sums wrongly in one that isn't full (its issue 26324, on AMX).
BLOCK = 16
#: In an order of channels, one that is always zero.
NO_CHANNEL = -1


@dataclass(frozen=True)
class Read:
    """What a unit reads.

    Attributes:
        slices: (source, start, stop) in the outputs of earlier units.
        channels: for each channel read, its original number in the unit's input.
    """

    slices: tuple[tuple[int, int, int], ...]
    channels: tuple[int, ...]

    def gather(self, sources: Sequence[Tensor]) -> Tensor:
        """The slices side by side."""
        return torch.cat([sources[s][:, start:stop] for s, start, stop in self.slices], dim=1)


@dataclass(frozen=True)
class ChannelPlan:
    """Where the channels of a stage lie once nothing is shuffled.

    Attributes:
        outputs: for each source (two branches, then the units) the original numbers of its
            output channels in the order in which they are now computed.
        reads: what each unit reads; the last entry is what leaves the stage.
    """

    outputs: tuple[tuple[int, ...], ...]
    reads: tuple[Read, ...]


def plan_channels(units: int, width: int) -> ChannelPlan:
    """Follow every channel of a stage from the unit that makes it to the one that takes it.

    Args:
        units: how many units with stride 1 come after the first, which has stride 2.
        width: channels that each unit makes: half the stage's.
    """
    # The stage's current channels, in their original order, as (source, channel).
    channels = [(source, i) for i in range(width) for source in (0, 1)]
    taken_by: dict[tuple[int, int], tuple[int, int]] = {}  # -> (reader, original number)
    for reader in range(units):
        passed, taken = channels[:width], channels[width:]
        taken_by.update({channel: (reader, i) for i, channel in enumerate(taken)})
        channels = [c for i, old in enumerate(passed) for c in (old, (reader + 2, i))]
    taken_by.update({channel: (units, i) for i, channel in enumerate(channels)})

    made = [[(source, i) for i in range(width)] for source in range(units + 2)]
    outputs = tuple(
        tuple(i for _, i in sorted(channels, key=taken_by.__getitem__)) for channels in made
    )
    reads = []
    for reader in range(units + 1):
        slices, numbers = [], []
        for source, order in enumerate(outputs):
            mine = [at for at, i in enumerate(order) if taken_by[source, i][0] == reader]
            if mine:
                slices.append((source, mine[0], mine[-1] + 1))
                numbers += [taken_by[source, order[at]][1] for at in mine]
        reads.append(Read(tuple(slices), tuple(numbers)))
    padded = tuple(tuple(pad_order(order)) for order in outputs)
    return ChannelPlan(padded, (*reads[:-1], _with_dead_channels(reads[-1], padded)))


def pad_order(order: Sequence[int]) -> list[int]:
    """``order`` with dead channels at its end, up to a multiple of ``BLOCK``."""
    return [*order, *[NO_CHANNEL] * (-len(order) % BLOCK)]


def _with_dead_channels(read: Read, outputs: Sequence[Sequence[int]]) -> Read:
    """The last read, padded to a multiple of ``BLOCK``: dead channels lie beside its slices."""
    missing = -len(read.channels) % BLOCK
    slices, channels, at = [], [], 0
    for source, start, stop in read.slices:
        added = min(missing, len(outputs[source]) - stop)
        missing -= added
        slices.append((source, start, stop + added))
        channels += [*read.channels[at : at + stop - start], *[NO_CHANNEL] * added]
        at += stop - start
    return Read(tuple(slices), tuple(channels))
