"""EfficientFace (Zhao, Liu & Zhou, AAAI 2021): a ShuffleNet-V2 body with two face-specific parts.

Parameter names follow the published checkpoints (``conv1``, ``stage2`` … ``conv5``, ``local``,
``modulator``), so those load with ``load_state_dict``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

STAGE_REPEATS = (4, 8, 4)

#: Channel reduction inside the modulator's two gates, and the spatial gate's dilation.
GATE_REDUCTION = 16
GATE_DILATION = 4


class EfficientFace(nn.Module):
    """One face crop to one frame feature: (N, 3, S, S) float in [0, 1] to (N, 1024).

    S is 224 in the paper; any multiple of 32 works, and pre-training starts smaller.
    """

    #: Of the stem, of the three stages and of the last layer.
    channels = (29, 116, 232, 464, 1024)
    #: How many numbers describe a crop: the last of them.
    feature_width = 1024

    def __init__(self) -> None:
        super().__init__()
        stem, *stages, features = self.channels
        self.conv1 = _conv_bn_relu(3, stem, kernel=3, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage2, self.stage3, self.stage4 = (
            _stage(before, out, repeats)
            for before, out, repeats in zip((stem, *stages), stages, STAGE_REPEATS, strict=False)
        )
        self.local = LocalFeatureExtractor(stem, stages[0])
        self.modulator = Modulator(stages[0])
        self.conv5 = _conv_bn_relu(stages[-1], features, kernel=1, stride=1)

    def features(self, crops: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, 1024), averaged over what is left of the picture."""
        x = self.maxpool(self.conv1(crops))
        x = self.modulator(self.stage2(x)) + self.local(x)
        x = self.conv5(self.stage4(self.stage3(x)))
        pooled: Tensor = x.mean(dim=(2, 3))
        return pooled

    def forward(self, crops: Tensor) -> Tensor:
        return self.features(crops)


class NarrowEfficientFace(EfficientFace):
    """The same with about half the channels, in blocks of 16: (N, 3, S, S) to (N, 512).

    It is there to be compared with (docs/explanation/compact.md); no checkpoint of it ships.
    """

    channels = (16, 64, 128, 256, 512)
    feature_width = 512


class ShuffleUnit(nn.Module):
    """ShuffleNet-V2 unit (Ma et al., ECCV 2018): two halves, concatenated and interleaved.

    With stride 1 the first half of the channels passes untouched; with stride 2 both halves
    are computed from the whole input. (N, C, H, W) to (N, C', H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.out_channels = out_channels
        half = out_channels // 2
        if stride > 1:
            self.branch1 = nn.Sequential(
                _depthwise(in_channels, in_channels, stride),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(in_channels if stride > 1 else half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            _depthwise(half, half, stride),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            first, second = self.branch1(x), self.branch2(x)
        else:
            first, passed = x.chunk(2, dim=1)
            second = self.branch2(passed)
        # Interleave the halves: channel 2i from the first, 2i + 1 from the second.
        return torch.stack((first, second), dim=2).flatten(1, 2)


class LocalFeatureExtractor(nn.Module):
    """Each quarter of the picture through depthwise convolutions of its own.

    (N, 29, H, W) to (N, 116, H / 2, W / 2). Quarters are numbered by column: top left,
    bottom left, top right, bottom right, as in the published weights.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        for quarter in range(1, 5):
            self.add_module(f"conv{quarter}_1", _depthwise(in_channels, out_channels, 2))
            self.add_module(f"bn{quarter}_1", nn.BatchNorm2d(out_channels))
            self.add_module(f"conv{quarter}_2", _depthwise(out_channels, out_channels, 1))
            self.add_module(f"bn{quarter}_2", nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        columns = []
        quarter = 0
        for column in x.chunk(2, dim=3):
            rows = []
            for patch in column.chunk(2, dim=2):
                quarter += 1
                for layer in (1, 2):
                    conv = self.get_submodule(f"conv{quarter}_{layer}")
                    norm = self.get_submodule(f"bn{quarter}_{layer}")
                    patch = torch.relu(norm(conv(patch)))
                rows.append(patch)
            columns.append(torch.cat(rows, dim=2))
        return torch.cat(columns, dim=3)


class Modulator(nn.Module):
    """Scales each value by sigmoid(channel gate x spatial gate); shape unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_att = ChannelGate(channels)
        self.spatial_att = SpatialGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.channel_att(x) * self.spatial_att(x))


class ChannelGate(nn.Module):
    """One weight a channel from its average: (N, C, H, W) to (N, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // GATE_REDUCTION
        self.gate_c = nn.Sequential(
            OrderedDict(
                gate_c_fc_0=nn.Linear(channels, narrow),
                gate_c_bn_1=nn.BatchNorm1d(narrow),
                gate_c_relu_1=nn.ReLU(),
                gate_c_fc_final=nn.Linear(narrow, channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.gate_c(x.mean(dim=(2, 3)))
        return weights[:, :, None, None]


class SpatialGate(nn.Module):
    """One weight a position from dilated convolutions: (N, C, H, W) to (N, 1, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // GATE_REDUCTION
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            gate_s_conv_reduce0=nn.Conv2d(channels, narrow, 1),
            gate_s_bn_reduce0=nn.BatchNorm2d(narrow),
            gate_s_relu_reduce0=nn.ReLU(),
        )
        for i in range(2):
            layers[f"gate_s_conv_di_{i}"] = nn.Conv2d(
                narrow, narrow, 3, padding=GATE_DILATION, dilation=GATE_DILATION
            )
            layers[f"gate_s_bn_di_{i}"] = nn.BatchNorm2d(narrow)
            layers[f"gate_s_relu_di_{i}"] = nn.ReLU()
        layers["gate_s_conv_final"] = nn.Conv2d(narrow, 1, 1)
        self.gate_s = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.gate_s(x)
        return weights


def _stage(in_channels: int, out_channels: int, repeats: int) -> nn.Sequential:
    units = [ShuffleUnit(in_channels, out_channels, stride=2)]
    units += [ShuffleUnit(out_channels, out_channels, stride=1) for _ in range(repeats - 1)]
    return nn.Sequential(*units)


def _conv_bn_relu(in_channels: int, out_channels: int, *, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _depthwise(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, 3, stride, padding=1, groups=in_channels, bias=False
    )
