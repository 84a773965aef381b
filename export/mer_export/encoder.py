"""EfficientFace rewritten for engines: the same function, without channel shuffles.

A ShuffleNet unit interleaves two halves and the next one splits them again: transposes and
copies that cost engines as much as a stage of convolutions, and that no quantiser can remove.
But every channel has one producer and one consumer, both known beforehand. Here each unit's
output is kept as it is, its channels sorted by when they are consumed, so that every unit
reads contiguous slices. Batch normalisations are folded into the convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from mer.models.efficientface import (
    STAGE_CHANNELS,
    EfficientFace,
    LocalFeatureExtractor,
    Modulator,
    ShuffleUnit,
)


class DeploymentEncoder(nn.Module):
    """Crops (N, 3, S, S) float32, standardised, to frame features (N, 1024)."""

    def __init__(self, encoder: EfficientFace) -> None:
        super().__init__()
        self.stem = nn.Sequential(*fold(encoder.conv1))
        self.maxpool = encoder.maxpool
        self.stage2 = UnshuffledStage(encoder.stage2, range(STAGE_CHANNELS[0]))
        order = self.stage2.order
        self.modulator = ReorderedModulator(encoder.modulator, order)
        self.local = GroupedLocalFeatures(encoder.local, order)
        self.stage3 = UnshuffledStage(encoder.stage3, order)
        self.stage4 = UnshuffledStage(encoder.stage4, self.stage3.order)
        self.conv5 = nn.Sequential(*fold(encoder.conv5, inputs=self.stage4.order))

    def forward(self, crops: Tensor) -> Tensor:
        x = self.maxpool(self.stem(crops))
        x = self.modulator(self.stage2(x)) + self.local(x)
        features: Tensor = self.conv5(self.stage4(self.stage3(x))).mean(dim=(2, 3))
        return features


class UnshuffledStage(nn.Module):
    """A stage of shuffle units; ``order[i]`` is the original number of its i-th channel.

    Args:
        inputs: the original numbers of the channels that come in.
    """

    def __init__(self, stage: nn.Sequential, inputs: Sequence[int]) -> None:
        super().__init__()
        first, *rest = (unit for unit in stage if isinstance(unit, ShuffleUnit))
        plan = plan_channels(len(rest), width=first.out_channels // 2)
        self.branches = nn.ModuleList(
            nn.Sequential(*fold(branch, inputs=inputs, outputs=outputs))
            for branch, outputs in zip((first.branch1, first.branch2), plan.outputs, strict=False)
        )
        self.units = nn.ModuleList(
            nn.Sequential(*fold(unit.branch2, inputs=read.channels, outputs=outputs))
            for unit, read, outputs in zip(rest, plan.reads, plan.outputs[2:], strict=False)
        )
        self._reads = plan.reads
        self.order = plan.reads[-1].channels

    def forward(self, x: Tensor) -> Tensor:
        sources = [branch(x) for branch in self.branches]
        for unit, read in zip(self.units, self._reads, strict=False):
            sources.append(unit(read.gather(sources)))
        return self._reads[-1].gather(sources)


class ReorderedModulator(nn.Module):
    """The modulator on channels in another order; its gates multiply by broadcasting."""

    def __init__(self, modulator: Modulator, order: Sequence[int]) -> None:
        super().__init__()
        gate: Any = modulator.channel_att.gate_c
        squeeze = fuse_linear_bn_eval(gate.gate_c_fc_0, gate.gate_c_bn_1)
        squeeze.weight = nn.Parameter(squeeze.weight[:, list(order)].detach())
        expand = copy.deepcopy(gate.gate_c_fc_final)
        expand.weight = nn.Parameter(expand.weight[list(order)].detach())
        expand.bias = nn.Parameter(expand.bias[list(order)].detach())
        self.channel_gate = nn.Sequential(squeeze, nn.ReLU(), expand)
        self.spatial_gate = nn.Sequential(*fold(modulator.spatial_att.gate_s, inputs=order))

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel_gate(x.mean(dim=(2, 3)))[:, :, None, None]
        return x * torch.sigmoid(channel * self.spatial_gate(x))


class GroupedLocalFeatures(nn.Module):
    """The four quarters' convolutions as grouped ones over quarters stacked as channels.

    (N, 29, H, W) to (N, 116, H / 2, W / 2), the channels in ``order``.
    """

    order: Tensor

    def __init__(self, local: LocalFeatureExtractor, order: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for layer in (1, 2):
            modules: Any = local
            quarters = [
                fuse_conv_bn_eval(
                    getattr(modules, f"conv{quarter}_{layer}"),
                    getattr(modules, f"bn{quarter}_{layer}"),
                )
                for quarter in (1, 3, 2, 4)  # the weights go by column, the stack by row
            ]
            self.layers.extend([_stack(quarters), nn.ReLU()])
        # Depthwise convolutions can't reorder their outputs, so this one takes a gather.
        self.register_buffer("order", torch.tensor(list(order)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5)
        x = self.layers(x.reshape(n, 4 * c, h // 2, w // 2))
        h, w = x.shape[2:]
        x = x.view(n, 2, 2, -1, h, w).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(n, -1, 2 * h, 2 * w)[:, self.order]


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
    return ChannelPlan(outputs, tuple(reads))


def fold(
    layers: nn.Module,
    *,
    inputs: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None,
) -> list[nn.Module]:
    """Fold each batch normalisation into the convolution before it, and reorder channels.

    Args:
        layers: a sequence of convolutions, batch normalisations and activations.
        inputs: the original numbers of the channels that come in, if not in order.
        outputs: the original numbers of the channels that shall go out, if not in order.
    """
    modules = list(layers.children())
    folded: list[nn.Module] = []
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.BatchNorm2d):
            continue
        if not isinstance(module, nn.Conv2d):
            folded.append(nn.ReLU())
            continue
        conv = module
        if isinstance(following, nn.BatchNorm2d):
            conv = fuse_conv_bn_eval(module, following)
        order = None if inputs is None else list(inputs)
        if order is not None and conv.groups == 1:
            conv = _with_weights(conv, conv.weight[:, order], conv.bias)
            inputs = None  # from here on channels are in their own order
        elif order is not None:  # depthwise: the order goes through
            conv = _with_weights(conv, conv.weight[order], _pick(conv.bias, order))
        folded.append(conv)
    if outputs is not None:
        last = max(i for i, module in enumerate(folded) if isinstance(module, nn.Conv2d))
        wanted = list(outputs)
        final: Any = folded[last]
        folded[last] = _with_weights(final, final.weight[wanted], _pick(final.bias, wanted))
    return folded


def _pick(bias: Tensor | None, order: list[int]) -> Tensor | None:
    return None if bias is None else bias[order]


def _with_weights(
    conv: Any, weight: Tensor, bias: Tensor | None, groups: int | None = None
) -> nn.Conv2d:
    """A convolution like ``conv`` with other weights, in as many groups or in ``groups``."""
    groups = groups or conv.groups
    new = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        groups,
        bias=bias is not None,
    )
    new.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return new


def _stack(convs: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """Convolutions side by side, each on channels of its own, as one with groups."""
    biases = [conv.bias for conv in convs if conv.bias is not None]
    return _with_weights(
        convs[0],
        torch.cat([conv.weight for conv in convs]),
        torch.cat(biases),
        groups=sum(conv.groups for conv in convs),
    )
