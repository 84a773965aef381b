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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from mer.models.efficientface import (
    EfficientFace,
    LocalFeatureExtractor,
    Modulator,
    ShuffleUnit,
)
from mer_export.network.channels import pad_order, plan_channels
from mer_export.network.folding import fold, pick_channels, reorder_channels, ungroup, with_weights
from mer_runtime.spec import VideoSpec


class DeploymentEncoder(nn.Module):
    """Raw crops (N, S, S, 3), float32 in 0 to 255, to frame features (N, F)."""

    def __init__(self, encoder: EfficientFace, video: VideoSpec) -> None:
        super().__init__()
        stem, *rest = fold(encoder.conv1)
        self.scaling = PixelScaling(video)
        stem_order = pad_order(range(encoder.channels[0]))
        self.stem = nn.Sequential(self.scaling.absorb(stem), *rest)
        self.maxpool = encoder.maxpool
        self.stage2 = UnshuffledStage(encoder.stage2, stem_order)
        order = self.stage2.order
        self.modulator = ReorderedModulator(encoder.modulator, order)
        self.local = QuarteredLocalFeatures(encoder.local, stem_order, order)
        self.stage3 = UnshuffledStage(encoder.stage3, order)
        self.stage4 = UnshuffledStage(encoder.stage4, self.stage3.order)
        self.conv5 = nn.Sequential(*fold(encoder.conv5, inputs=self.stage4.order))

    def forward(self, crops: Tensor) -> Tensor:
        x = self.maxpool(self.stem(self.scaling(crops.permute(0, 3, 1, 2))))
        x = self.modulator(self.stage2(x)) + self.local(x)
        features: Tensor = self.conv5(self.stage4(self.stage3(x))).mean(dim=(2, 3))
        return features


class PixelScaling(nn.Module):
    """What a spec does to pixels, as far as the first convolution can't absorb it.

    A factor goes into that convolution's weights, exactly. A mean can't, where the convolution
    pads with zeros: it stays in front. (N, 3, S, S) float32, shape unchanged.
    """

    offset: Tensor

    def __init__(self, video: VideoSpec) -> None:
        super().__init__()
        mean = torch.tensor(video.mean, dtype=torch.float64) / video.scale
        self.factor = video.scale / torch.tensor(video.std, dtype=torch.float64)
        self.shifts = any(video.mean)
        self.register_buffer("offset", mean.float()[:, None, None], persistent=False)

    def absorb(self, conv: Any) -> nn.Conv2d:
        """``conv`` with the factor in its weights."""
        weight = conv.weight.double() * self.factor[:, None, None]
        return with_weights(conv, weight.to(conv.weight.dtype), conv.bias, conv.groups)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels - self.offset if self.shifts else pixels


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
    """The modulator on channels in another order; its gates multiply by broadcasting.

    The spatial gate's convolutions are as wide as a block, so that they become int8 like their
    neighbours: between two float layouts, what little they compute costs a sixth of the encoder.
    """

    def __init__(self, modulator: Modulator, order: Sequence[int]) -> None:
        super().__init__()
        gate: Any = modulator.channel_att.gate_c
        squeeze = fuse_linear_bn_eval(gate.gate_c_fc_0, gate.gate_c_bn_1)
        squeeze.weight = nn.Parameter(pick_channels(squeeze.weight, order, dim=1).detach())
        expand = copy.deepcopy(gate.gate_c_fc_final)
        expand.weight = nn.Parameter(pick_channels(expand.weight, order).detach())
        expand.bias = nn.Parameter(pick_channels(expand.bias, order).detach())
        self.channel_gate = nn.Sequential(squeeze, nn.ReLU(), expand)
        self.spatial_gate = nn.Sequential(*fold(modulator.spatial_att.gate_s, inputs=order))

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel_gate(x.mean(dim=(2, 3)))[:, :, None, None]
        spatial = self.spatial_gate(x)[:, :1]  # the rest of the block is dead
        return x * torch.sigmoid(channel * spatial)


class QuarteredLocalFeatures(nn.Module):
    """The four quarters' convolutions, their channels in orders.

    (N, 32, H, W) to (N, 128, H / 2, W / 2). Each input channel feeds four outputs, which engines
    don't treat as depthwise; a dense convolution with zeros in it costs them less, and gives its
    channels in any order.
    """

    def __init__(
        self, local: LocalFeatureExtractor, inputs: Sequence[int], outputs: Sequence[int]
    ) -> None:
        super().__init__()
        modules: Any = local
        self.quarters = nn.ModuleList()
        for quarter in (1, 3, 2, 4):  # the weights go by column, these by row
            first, second = (
                fuse_conv_bn_eval(
                    getattr(modules, f"conv{quarter}_{layer}"),
                    getattr(modules, f"bn{quarter}_{layer}"),
                )
                for layer in (1, 2)
            )
            self.quarters.append(
                nn.Sequential(
                    reorder_channels(ungroup(first), inputs=inputs, outputs=outputs),
                    nn.ReLU(),
                    reorder_channels(second, outputs=outputs),
                    nn.ReLU(),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        patches = [patch for row in x.chunk(2, dim=2) for patch in row.chunk(2, dim=3)]
        done = [layers(patch) for layers, patch in zip(self.quarters, patches, strict=True)]
        rows = [torch.cat(done[i : i + 2], dim=3) for i in (0, 2)]
        return torch.cat(rows, dim=2)
