"""The network against the public reference's answers, and fusions recomputed by other means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mer.models import (
    FUSIONS,
    AudioBranch,
    EfficientFace,
    MultimodalNet,
    Standardiser,
    VisualBranch,
    build_encoder,
    build_model,
)
from mer.models.efficientface import LocalFeatureExtractor, Modulator, ShuffleUnit
from mer_runtime.spec import RAVDESS_LABELS, AudioSpec, Fusion, Spec, VideoSpec

CONFIGURATIONS = [("ia", 1), ("ia", 4), ("it", 1), ("it", 4), ("lt", 1), ("lt", 4)]


@pytest.fixture(scope="module", autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def make_net(fusion: Fusion, num_heads: int = 1, num_classes: int = 8) -> MultimodalNet:
    """Random weights large enough for the fusion to matter, batch statistics not trivial."""
    labels = RAVDESS_LABELS[:num_classes]
    net = build_model(Spec(fusion=fusion, labels=labels, num_heads=num_heads))
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean") or name.endswith("bias"):
            value.normal_(0, 0.2)
        elif ".attn." in name or ".mlp." in name or name.startswith(("av", "va")):
            value.normal_(0, 0.3)
    return net.eval()


# --- the oracle ---------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("missing", ["", "video", "audio"])
def test_reference_oracle(shared: Path, missing: str) -> None:
    oracle = np.load(shared / "oracle" / "ia.npz")
    weights = {
        name[2:]: torch.from_numpy(oracle[name]) for name in oracle.files if name.startswith("w:")
    }
    net = build_model(Spec(num_heads=int(oracle["num_heads"])))
    net.load_state_dict(weights)  # strict: every name and shape is the reference's
    net.eval()
    audio = torch.from_numpy(oracle["audio"])
    video = torch.from_numpy(oracle["video_u8"]).float().div(255).view(2, 15, 3, 224, 224)
    if missing == "video":
        video = torch.zeros_like(video)
    elif missing == "audio":
        audio = torch.zeros_like(audio)
    with torch.inference_mode():
        logits = net(audio, video)
    wanted = oracle[f"logits_{missing}_missing" if missing else "logits"]
    np.testing.assert_allclose(logits.numpy(), wanted, rtol=0, atol=1e-4)  # issue 1's bound


# --- fusions, recomputed with PyTorch's own attention --------------------------------------


def convolve(w: dict[str, Tensor], prefix: str, x: Tensor, *, audio: bool) -> Tensor:
    """One row of the paper's Table 1 by plain functional calls."""
    x = functional.conv1d(x, w[f"{prefix}.0.weight"], w[f"{prefix}.0.bias"], padding=1 - audio)
    mean, var = w[f"{prefix}.1.running_mean"], w[f"{prefix}.1.running_var"]
    x = functional.batch_norm(x, mean, var, w[f"{prefix}.1.weight"], w[f"{prefix}.1.bias"])
    x = functional.relu(x)
    return torch.maximum(x[..., :-1], x[..., 1:]) if audio else x


def branch(w: dict[str, Tensor], name: str, stage: int, x: Tensor) -> Tensor:
    for i in (0, 1) if stage == 1 else (2, 3):
        x = convolve(w, f"{name}.conv1d_{i}", x, audio=name == "audio_model")
    return x


def attend(w: dict[str, Tensor], prefix: str, keys: Tensor, queries: Tensor, heads: int) -> Tensor:
    """Multi-head attention by ``multi_head_attention_forward`` (sequence before batch)."""
    width = w[f"{prefix}.q.weight"].shape[0]
    if w[f"{prefix}.q.weight"].shape[1] != width:  # that function wants queries of full width
        raise AssertionError("unexpected width")
    key_weight, value_weight = w[f"{prefix}.kv.weight"].split(width)
    out, _ = functional.multi_head_attention_forward(
        queries.transpose(0, 1),
        keys.transpose(0, 1),
        keys.transpose(0, 1),
        width,
        heads,
        None,
        torch.zeros(3 * width),
        None,
        None,
        False,
        0.0,
        w[f"{prefix}.proj.weight"],
        w[f"{prefix}.proj.bias"],
        training=False,
        use_separate_proj_weight=True,
        q_proj_weight=w[f"{prefix}.q.weight"],
        k_proj_weight=key_weight,
        v_proj_weight=value_weight,
    )
    return out.transpose(0, 1)


def block(w: dict[str, Tensor], name: str, keys: Tensor, queries: Tensor, heads: int) -> Tensor:
    """Figure 3's transformer block on (B, C, N) sequences."""
    keys, queries = keys.transpose(1, 2), queries.transpose(1, 2)

    def norm(part: str, x: Tensor) -> Tensor:
        weight, bias = w[f"{name}.{part}.weight"], w[f"{name}.{part}.bias"]
        return functional.layer_norm(x, (x.shape[-1],), weight, bias)

    x = attend(w, f"{name}.attn", norm("norm1_k", keys), norm("norm1_q", queries), heads)
    hidden = functional.linear(
        norm("norm2", x), w[f"{name}.mlp.fc1.weight"], w[f"{name}.mlp.fc1.bias"]
    )
    hidden = functional.gelu(hidden)
    x = x + functional.linear(hidden, w[f"{name}.mlp.fc2.weight"], w[f"{name}.mlp.fc2.bias"])
    return x.transpose(1, 2)


def attention_map(
    w: dict[str, Tensor], name: str, keys: Tensor, queries: Tensor, heads: int
) -> Tensor:
    """Softmax weights averaged over heads, (B, Nq, Nk), head by head with einsum."""
    width = w[f"{name}.q.weight"].shape[0]
    q = torch.einsum("oc,bcn->bon", w[f"{name}.q.weight"], queries)
    k = torch.einsum("oc,bcn->bon", w[f"{name}.kv.weight"][:width], keys)
    maps = []
    for q_head, k_head in zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1), strict=True):
        similarity = torch.einsum("bcq,bck->bqk", q_head, k_head) / (width / heads) ** 0.5
        maps.append(similarity.softmax(dim=2))
    return torch.stack(maps).mean(dim=0)


def recompute(net: MultimodalNet, heads: int, audio: Tensor, frames: Tensor) -> Tensor:
    """Logits from MFCCs and frame features by the definition of sections 5.1 and 5.2."""
    w = dict(net.state_dict())
    a = branch(w, "audio_model", 1, audio)
    v = branch(w, "visual_model", 1, frames.transpose(1, 2))
    if net.fusion == "ia":
        # audio is weighted by how much the video's queries look at it, and vice versa
        a, v = (
            a * attention_map(w, "va1", a, v, heads).sum(dim=1)[:, None],
            v * attention_map(w, "av1", v, a, heads).sum(dim=1)[:, None],
        )
    if net.fusion == "it":
        a, v = a + block(w, "av1", v, a, heads), v + block(w, "va1", a, v, heads)
    a, v = branch(w, "audio_model", 2, a), branch(w, "visual_model", 2, v)
    if net.fusion == "lt":
        a, v = block(w, "av", v, a, heads), block(w, "va", a, v, heads)
    pooled = torch.cat((a.mean(dim=2), v.mean(dim=2)), dim=1)
    return functional.linear(pooled, w["classifier_1.0.weight"], w["classifier_1.0.bias"])


@pytest.mark.parametrize(("fusion", "heads"), [*CONFIGURATIONS, ("it", 64), ("lt", 2)])
@torch.no_grad()
def test_fusion_recomputed(fusion: Fusion, heads: int) -> None:
    net = make_net(fusion, heads)
    audio, frames = 3 * torch.randn(3, 10, 113), torch.rand(3, 15, 1024)
    got = net.head(audio, frames)
    # float32 rounding over sums of a few hundred terms; logits are of the order of 1.
    torch.testing.assert_close(got, recompute(net, heads, audio, frames), rtol=1e-4, atol=1e-4)
    if heads == 4:
        other = build_model(Spec(fusion=fusion)).eval()
        other.load_state_dict(net.state_dict())
        # The heads matter: the same weights with one head answer otherwise.
        assert (other.head(audio, frames) - got).abs().max() > 1e-3


@torch.no_grad()
def test_fusion_lets_each_modality_reach_the_answer() -> None:
    audio, frames = torch.randn(1, 10, 113), torch.rand(1, 15, 1024)
    for fusion in FUSIONS:
        net = make_net(fusion)
        both = net.head(audio, frames)
        assert (net.head(audio + 1, frames) - both).abs().max() > 1e-3
        assert (net.head(audio, frames.flip(2)) - both).abs().max() > 1e-3


# --- shapes and sizes ---------------------------------------------------------------------


@pytest.mark.parametrize(("fusion", "heads"), CONFIGURATIONS)
@torch.no_grad()
def test_shapes(fusion: Fusion, heads: int) -> None:
    net = make_net(fusion, heads, num_classes=5)
    audio, video = torch.randn(2, 10, 113), torch.rand(2, 15, 3, 64, 64)
    frames = net.encode(video)
    assert frames.shape == (2, 15, 1024)
    logits = net(audio, video)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, net.head(audio, frames))
    # A clip's answer doesn't depend on its neighbour in the batch.
    torch.testing.assert_close(net(audio[1:], video[1:]), logits[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_other_lengths_and_sizes() -> None:
    spec = Spec(audio=AudioSpec(n_mfcc=40, sample_rate=22_050), fusion="it", num_heads=2)
    net = build_model(spec).eval()
    assert net(torch.randn(1, 40, 156), torch.rand(1, 10, 3, 96, 96)).shape == (1, 8)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_number_of_parameters(fusion: Fusion) -> None:
    """1.85 M by design.md; the three fusions differ by their attention alone."""
    count = sum(p.numel() for p in build_model(Spec(fusion=fusion)).parameters())
    assert 1_800_000 < count < 2_100_000
    if fusion == "ia":
        assert count == pytest.approx(1_850_000, rel=0.005)


def test_channels_are_the_papers() -> None:
    """Table 1 and EfficientFace's 29/116/232/464/1024 channels in 4/8/4 units."""
    net: Any = build_model(Spec())
    visual, audio = net.visual_model, net.audio_model
    convolutions = [visual.get_submodule(f"conv1d_{i}.0") for i in range(4)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128]
    assert [c.kernel_size for c in convolutions] == [(3,)] * 4
    convolutions = [audio.get_submodule(f"conv1d_{i}.0") for i in range(4)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 128]
    assert [len(stage) for stage in (visual.stage2, visual.stage3, visual.stage4)] == [4, 8, 4]
    assert visual.conv1[0].out_channels == 29
    assert visual.conv5[0].out_channels == 1024


@torch.no_grad()
def test_single_modality_branches() -> None:
    audio, video = torch.randn(2, 10, 113), torch.rand(2, 15, 3, 64, 64)
    assert AudioBranch(8, 10).eval()(audio).shape == (2, 8)
    assert VisualBranch(8).eval()(video).shape == (2, 8)


# --- the encoder's parts ------------------------------------------------------------------


@torch.no_grad()
def test_shuffle_unit_keeps_half_of_its_channels() -> None:
    unit = ShuffleUnit(116, 116, stride=1).eval()
    x = torch.randn(2, 116, 12, 12)
    y = unit(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y[:, 0::2], x[:, :58])  # untouched, at the even places
    torch.testing.assert_close(y[:, 1::2], unit.branch2(x[:, 58:]))


@torch.no_grad()
def test_shuffle_is_channel_shuffle() -> None:
    """PyTorch's own operator on the concatenated halves."""
    unit = ShuffleUnit(29, 116, stride=2).eval()
    x = torch.randn(1, 29, 16, 16)
    halves = torch.cat((unit.branch1(x), unit.branch2(x)), dim=1)
    torch.testing.assert_close(unit(x), functional.channel_shuffle(halves, 2))
    assert unit(x).shape == (1, 116, 8, 8)


@torch.no_grad()
def test_local_features_see_their_quarter_only() -> None:
    local = LocalFeatureExtractor(29, 116).eval()
    x = torch.rand(1, 29, 56, 56)
    before = local(x)
    assert before.shape == (1, 116, 28, 28)
    quarters = {(0, 0): 1, (28, 0): 2, (0, 28): 3, (28, 28): 4}  # (top, left): number
    for (top, left), number in quarters.items():
        changed = x.clone()
        changed[:, :, top : top + 28, left : left + 28] += 1
        moved = (local(changed) - before).abs().amax(dim=(0, 1)) > 0
        inside = torch.zeros(28, 28, dtype=torch.bool)
        inside[top // 2 : top // 2 + 14, left // 2 : left // 2 + 14] = True
        assert moved[inside].any()
        assert not moved[~inside].any()
        # And by the convolutions of that number.
        net = LocalFeatureExtractor(29, 116).eval()
        net.load_state_dict(local.state_dict())
        net.get_submodule(f"conv{number}_2").weight.zero_()
        differs = (net(x) - before).abs().amax(dim=(0, 1)) > 0
        assert not differs[~inside].any()
        assert differs[inside].any()


@torch.no_grad()
def test_modulator_scales_between_nought_and_one() -> None:
    modulator = Modulator(116).eval()
    x = torch.rand(2, 116, 28, 28) + 0.1
    ratio = modulator(x) / x
    assert ratio.min() > 0
    assert ratio.max() < 1
    # A product of a weight a channel and a weight a position: rank one before the sigmoid.
    logit = torch.logit(ratio.double())[0].flatten(1)
    assert torch.linalg.matrix_rank(logit, rtol=1e-3) == 1


@torch.no_grad()
def test_encoder_on_other_sizes() -> None:
    encoder = EfficientFace().eval()
    for size in (64, 112, 224):
        assert encoder(torch.rand(1, 3, size, size)).shape == (1, 1024)
    assert build_encoder("efficientface-narrow").eval()(torch.rand(1, 3, 112, 112)).shape == (1, 512)


# --- training -----------------------------------------------------------------------------


@pytest.mark.parametrize(("fusion", "heads"), [("ia", 1), ("it", 4), ("lt", 1)])
def test_gradient_reaches_every_parameter(fusion: Fusion, heads: int) -> None:
    net = make_net(fusion, heads).train()
    logits = net(torch.randn(2, 10, 113), torch.rand(2, 15, 3, 64, 64))
    functional.cross_entropy(logits, torch.tensor([1, 6])).backward()
    silent = {
        name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().any()
    }
    # The single-modality heads aren't in the fused path; ``ia`` uses the attention's scores
    # alone, as the reference does, so its projections are never trained.
    expected = {
        f"{b}_model.classifier_1.0.{p}" for b in ("audio", "visual") for p in ("weight", "bias")
    }
    if fusion == "ia":
        expected |= {f"{b}.proj.{p}" for b in ("av1", "va1") for p in ("weight", "bias")}
    # Convolutions before a batch normalisation have a bias that it takes away again: its
    # gradient is rounding noise, which happens to be zero in places.
    biases = {
        f"{prefix}.{index}.bias"
        for prefix, module in net.named_modules()
        if isinstance(module, nn.Sequential)
        for index, part in enumerate(module[:-1])
        if isinstance(part, nn.Conv1d | nn.Conv2d) and isinstance(module[index + 1], nn.BatchNorm1d)
    }
    assert silent - biases == expected


# --- standardisation ----------------------------------------------------------------------


@torch.no_grad()
def test_standardiser_by_hand(small_model: tuple[MultimodalNet, Spec]) -> None:
    spec = small_model[1]
    generator = np.random.default_rng(0)
    crops = generator.integers(0, 256, (1, 15, 32, 32, 3), dtype=np.uint8)
    mfcc = generator.normal(0, 50, (1, 10, 113)).astype(np.float32)
    audio, video = Standardiser(spec)(torch.from_numpy(mfcc), torch.from_numpy(crops))
    mean, std = np.array(spec.audio.mean)[:, None], np.array(spec.audio.std)[:, None]
    np.testing.assert_allclose(audio.numpy(), (mfcc - mean) / std, rtol=1e-5, atol=1e-5)
    wanted = (crops * spec.video.scale - np.array(spec.video.mean)) / np.array(spec.video.std)
    assert video.shape == (1, 15, 3, 32, 32)
    np.testing.assert_allclose(video.numpy(), np.moveaxis(wanted, -1, 2), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_standardiser_without_constants_only_scales() -> None:
    spec = Spec(video=VideoSpec(colour="bgr"))
    mfcc, crops = torch.randn(1, 10, 113), torch.full((1, 15, 32, 32, 3), 255, dtype=torch.uint8)
    audio, video = Standardiser(spec)(mfcc, crops)
    torch.testing.assert_close(audio, mfcc)
    torch.testing.assert_close(video, torch.ones(1, 15, 3, 32, 32))
    assert Standardiser(spec).video(crops[0]).shape == (15, 3, 32, 32)


def test_small_model_is_reproducible(
    small_model: tuple[MultimodalNet, Spec], write_checkpoint: Callable[..., Path]
) -> None:
    """The fixture that other tests stand on: finite, and different inputs, different answers."""
    net, _ = small_model
    with torch.no_grad():
        logits = net(torch.randn(3, 10, 113), torch.randn(3, 15, 3, 64, 64))
    assert torch.isfinite(logits).all()
    assert (logits[0] - logits[1]).abs().max() > 0.01
    assert write_checkpoint().stat().st_size > 5_000_000
