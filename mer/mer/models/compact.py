"""A compact face encoder of dense 3 x 3 convolutions, which int8 kernels compute best.

In training each convolution has two more branches beside it, a 1 x 1 convolution and, where the
shape stays, the input itself. All three are linear, so one 3 x 3 convolution does the same
afterwards (RepVGG, Ding et al., CVPR 2021). There is no batch normalisation on the two small
branches, but one behind the sum: with one on each, the folded weights quantise badly (QARepVGG,
Chu et al., AAAI 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

#: Channels and stride of each block, all multiples of 16: 39 million multiplications for a crop
#: of 96 pixels.
BLOCKS = ((32, 2), (48, 2), (64, 2), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1))
FEATURES = 256


class CompactFace(nn.Module):
    """One face crop to one frame feature: (N, 3, S, S) float in [0, 1] to (N, 256).

    S is any multiple of 16; the shipped one is trained at 96.
    """

    #: How many numbers describe a crop.
    feature_width = FEATURES

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        blocks: list[nn.Module] = []
        for out, stride in BLOCKS:
            blocks.append(BranchedConv(channels, out, stride))
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.expand = nn.Sequential(
            nn.Conv2d(channels, FEATURES, 1, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU()
        )

    def features(self, crops: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, 256), averaged over what is left of the picture."""
        pooled: Tensor = self.expand(self.blocks(crops)).mean(dim=(2, 3))
        return pooled

    def forward(self, crops: Tensor) -> Tensor:
        return self.features(crops)


class BranchedConv(nn.Module):
    """Three branches, a batch normalisation of their sum, ReLU.

    (N, C, H, W) to (N, C', H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.passes = in_channels == out_channels and stride == 1
        self.dense = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.dense_bn = nn.BatchNorm2d(out_channels)
        self.point = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        # A stride of the convolution would do the same, but PyTorch 2.13 on a CPU writes outside
        # its memory in the gradient of such a one with 3 channels, where these lie innermost.
        points = x[:, :, :: self.stride, :: self.stride].contiguous()
        total = self.dense_bn(self.dense(x)) + self.point(points)
        if self.passes:
            total = total + x
        return functional.relu(self.bn(total))

    @torch.no_grad()
    def fold(self) -> nn.Conv2d:
        """One convolution with a bias that computes what stands before the ReLU (in eval mode)."""
        bn: nn.BatchNorm2d = self.dense_bn
        weight, bias = _fuse(self.dense.weight, None, bn)
        weight = weight + functional.pad(self.point.weight, (1, 1, 1, 1))
        if self.passes:
            middle = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
            weight = weight + functional.pad(middle[:, :, None, None], (1, 1, 1, 1))
        weight, bias = _fuse(weight, bias, self.bn)
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, self.stride, padding=1)
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)  # type: ignore[union-attr]
        return conv


def _fuse(weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = bn.running_mean, bn.running_var
    assert mean is not None
    assert variance is not None
    return fuse_conv_bn_weights(weight, bias, mean, variance, bn.eps, bn.weight, bn.bias)
