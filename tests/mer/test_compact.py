"""The compact encoder, and the fusion that weighs modalities by how reliable they look."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mer.models import build_encoder, build_model
from mer.models.compact import BLOCKS, FEATURES, BranchedConv, CompactFace
from mer_runtime.spec import Spec, VideoSpec

#: Pixels of a crop, for which the budget is counted.
SIZE = 96


def count_products(net: nn.Module, crops: torch.Tensor) -> int:
    """Multiplications of the convolutions that are folded, for one crop."""
    total = 0
    size = crops.shape[-1]
    for block in net.modules():
        if isinstance(block, BranchedConv):
            size = -(-size // block.stride)
            total += block.dense.weight.numel() * size**2
    return total + 128 * FEATURES * size**2


def settle(net: nn.Module) -> nn.Module:
    """Random batch statistics, scales and shifts, as training leaves them."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize(("channels", "out", "stride"), [(16, 16, 1), (16, 32, 1), (16, 16, 2)])
def test_a_block_folds_into_one_convolution(channels: int, out: int, stride: int) -> None:
    torch.manual_seed(0)
    block = settle(BranchedConv(channels, out, stride)).double()
    assert isinstance(block, BranchedConv)
    x = torch.randn(2, channels, 9, 9, dtype=torch.float64)
    conv = block.fold().double()
    torch.testing.assert_close(conv(x).relu(), block(x), rtol=1e-6, atol=1e-6)


def test_budget() -> None:
    net = CompactFace()
    crops = torch.rand(1, 3, SIZE, SIZE)
    assert net.eval()(crops).shape == (1, FEATURES)
    assert count_products(net, crops) <= 40_000_000
    assert all(channels % 16 == 0 for channels, _ in BLOCKS)


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 96, 112, 160, 224])
def test_other_sizes(size: int) -> None:
    for name in ("compact", "efficientface"):
        encoder = build_encoder(name).eval()
        features = encoder(torch.rand(2, 3, size, size))
        assert features.shape == (2, encoder.feature_width)


@torch.no_grad()
def test_gate_starts_as_ia_and_can_outvote() -> None:
    spec = Spec(video=VideoSpec(frames=3, size=32), encoder="compact")
    torch.manual_seed(0)
    plain = build_model(spec).eval()
    gated = build_model(Spec(video=spec.video, encoder="compact", fusion="gated")).eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    audio, video = torch.randn(2, 10, 113), torch.rand(2, 3, 3, 32, 32)
    torch.testing.assert_close(gated(audio, video), plain(audio, video))
    late = torch.ones(2, 128, 5), torch.ones(2, 128, 3)
    gated.trust_audio.bias.fill_(-20.0)
    heard, seen = gated.meet_late(*late)
    assert heard.abs().max() < 1e-6  # a voice that isn't trusted is as good as none
    torch.testing.assert_close(seen, 2 * late[1])


def test_crops_whose_channels_lie_innermost() -> None:
    """As crops come from a cache. A convolution of stride 2 here would end the process."""
    net = CompactFace()
    crops = torch.rand(16, 32, 32, 3).permute(0, 3, 1, 2)
    for _ in range(3):
        net(crops).sum().backward()
    gradient = net.get_parameter("blocks.0.point.weight").grad
    assert gradient is not None
    assert gradient.isfinite().all()
