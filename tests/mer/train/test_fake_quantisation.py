"""Rounding against numpy and against ONNX Runtime; which layers of the network it reaches."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from mer import Checkpoint
from mer.models import MultimodalNet, Standardiser
from mer.train.fake_quantisation import FakeQuantisation, round_activations, round_weights
from mer_calibration import Probe, Range
from mer_calibration.graph.dialects import X86
from mer_calibration.graph.placement import place
from mer_calibration.graph.quantisation import quantise_graph
from mer_export.network.deploy import export_head
from mer_runtime.spec import FUSIONS

SmallModel = tuple[MultimodalNet, Any]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fake_quantise(net: nn.Module, *batches: Tensor) -> FakeQuantisation:
    """A quantisation of ``net`` that has observed these batches."""
    quantisation = FakeQuantisation(net)
    quantisation.observing = True
    with torch.no_grad(), quantisation:
        for batch in batches:
            net(batch)
    quantisation.observing = False
    return quantisation


def test_layer_by_hand() -> None:
    """Against weights that are folded first and rounded then, as the exporter does."""
    conv, norm = nn.Conv1d(3, 5, 3, bias=False), nn.BatchNorm1d(5)
    with torch.no_grad():
        conv.weight.copy_(draw(5, 3, 3, seed=1))
        norm.weight.copy_(torch.tensor([0.3, -2.0, 40.0, 1.0, 0.01]))
        norm.bias.copy_(draw(5, seed=2))
        norm.running_mean.copy_(draw(5, seed=3))
        norm.running_var.copy_(draw(5, seed=4).square() + 0.1)
    net = nn.Sequential(conv, norm).eval()
    x = draw(2, 3, 20) + 0.5
    with fake_quantise(net, x):
        got = net(x).detach().numpy()

    double = {name: value.double().numpy() for name, value in net.state_dict().items()}
    factor = double["1.weight"] / np.sqrt(double["1.running_var"] + norm.eps)
    folded = double["0.weight"] * factor[:, None, None]
    scale = np.abs(folded).max(axis=(1, 2), keepdims=True) / 127
    weight = np.round(folded / scale) * scale
    low, high = x.min().item(), x.max().item()
    step = (high - low) / 255
    zero = round(-low / step)
    integers = np.clip(np.round(x.double().numpy() / step) + zero, 0, 255)
    rounded = (integers - zero) * step
    windows = np.lib.stride_tricks.sliding_window_view(rounded, 3, axis=2)
    expected = np.einsum("bctk,ock->bot", windows, weight)
    expected += (double["1.bias"] - double["1.running_mean"] * factor)[:, None]
    # float32 against float64. One value rounded otherwise would differ by a whole step, which
    # weights of about 1 turn into 1e-2 or more.
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert step > 1e-2
    plain = net(x).detach().numpy()
    assert np.abs(plain - got).max() > 1e-2, "nothing was rounded"


@pytest.mark.parametrize("span", [(-1.7, 4.1), (0.3, 2.0), (-3.0, -0.5)])
def test_activations_as_onnx_runtime_rounds_them(span: tuple[float, float]) -> None:
    x = 3 * draw(10_000)
    low, high = min(span[0], 0), max(span[1], 0)
    scale = (high - low) / 255
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("zero", TensorProto.UINT8, [], [round(-low / scale)]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    shown = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [len(x)]) for n in "xy"]
    graph = helper.make_graph(nodes, "qdq", shown[:1], shown[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"x": x.numpy()})
    got = round_activations(x, span).numpy()
    # Both round halves to even, but one multiplies where the other divides by the scale: a value
    # within float32's error of a half may go the other way.
    same = np.isclose(got, expected, rtol=0, atol=scale / 1000)
    assert same.mean() > 0.9995
    assert np.abs(got - expected).max() < 1.001 * scale
    assert got.min() >= low - scale
    assert got.max() <= high + scale


def test_gradients_pass_through() -> None:
    layer = nn.Linear(4, 3)
    x = torch.tensor([[0.5, -0.5, 0.9, -0.9]])
    quantisation = fake_quantise(layer, x)
    more = torch.tensor([[0.5, -0.5, 5.0, -0.9]], requires_grad=True)
    with quantisation:
        layer(more).sum().backward()
    inside = round_activations(more.detach(), (-0.9, 0.9))
    assert torch.allclose(layer.weight.grad, inside.expand(3, 4))
    # Outside its range an activation is clipped, and has no gradient.
    assert torch.equal(more.grad != 0, torch.tensor([[True, True, False, True]]))


def test_ranges_are_moving_averages_that_freeze() -> None:
    layer = nn.Linear(1, 1)
    first, second = torch.tensor([[-1.0], [3.0]]), torch.tensor([[-2.0], [13.0]])
    quantisation = fake_quantise(layer, first, second)
    assert quantisation.ranges == {"weight": pytest.approx((-1.1, 4.0))}
    with torch.no_grad(), quantisation:
        layer(100 * second)
    assert quantisation.ranges == {"weight": pytest.approx((-1.1, 4.0))}


def test_zeros_stay_zeros() -> None:
    assert torch.equal(round_weights(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert torch.equal(round_activations(torch.zeros(3), (0.0, 0.0)), torch.zeros(3))
    # One dead output channel does no harm to the next.
    weight = torch.stack((torch.zeros(127), torch.arange(127.0) + 1))
    assert torch.allclose(round_weights(weight), weight)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_layer_that_is_used_is_reached(fusion: str) -> None:
    net = MultimodalNet(fusion).eval()
    audio, frames = draw(2, 10, 113), draw(2, 15, 1024)
    quantisation = FakeQuantisation(net)
    quantisation.observing = True
    with torch.no_grad(), quantisation:
        net(audio, draw(2, 15, 3, 32, 32))
    names = {name for name, weight in net.named_parameters() if weight.ndim > 1}
    unused = {name for name in names if "model.classifier_1" in name}
    if fusion == "ia":  # it uses the attention's scores alone
        unused |= {"av1.proj.weight", "va1.proj.weight"}
    assert set(quantisation.ranges) == names - unused
    quantisation.observing = False
    net.requires_grad_(True)
    with quantisation:
        net.head(audio, frames).sum().backward()
    head = {name for name in names - unused if net.get_parameter(name).grad is not None}
    assert {name for name in head if ".kv." in name or ".q." in name}
    assert all(net.get_parameter(name).grad.abs().max() > 0 for name in head)


def test_small_model_is_rounded_but_not_ruined(small_model: SmallModel) -> None:
    net, _ = small_model
    audio, frames = draw(2, 10, 113), draw(2, 15, 1024).abs()
    quantisation = FakeQuantisation(net)
    quantisation.observing = True
    with torch.no_grad(), quantisation:
        exact = net.head(audio, frames)
        assert torch.equal(exact, net.head(audio, frames))
        quantisation.observing = False
        rounded = net.head(audio, frames)
    difference = (exact - rounded).abs().max()
    # Eight bits keep about two digits of logits that spread over several units.
    assert 0 < difference < 0.1 * exact.std()


def test_other_networks_are_left_alone() -> None:
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    x = draw(3, 2)
    with torch.no_grad(), fake_quantise(layer, x):
        inside = other(x)
    assert torch.equal(inside, other(x))


def test_error_is_that_of_the_exported_int8_graph(small_model: SmallModel) -> None:
    """Against our own quantiser's graph in ONNX Runtime, with one channel that spoils a scale."""
    net, spec = copy.deepcopy(small_model[0]), small_model[1]
    with torch.no_grad():
        branch = net.audio_model
        channel = int(branch.conv1d_0[1].weight.argmax())
        branch.conv1d_0[1].weight[channel] *= 100
        branch.conv1d_0[1].bias[channel] *= 100
        branch.conv1d_1[0].weight[:, channel] /= 100
    mfcc = 30 * draw(20, 10, 113) + torch.tensor(spec.audio.mean)[:, None]
    frames = draw(20, 15, 1024, seed=1).abs()
    feeds = [{"mfcc": mfcc[i : i + 1], "features": frames[i : i + 1]} for i in range(20)]
    feeds = [{name: value.numpy() for name, value in feed.items()} for feed in feeds]

    graph = export_head(Checkpoint(net, spec))
    sources = place(graph).sources()
    probe = Probe(graph, sources)
    seen = [probe.read(feed) for feed in feeds]
    spans = {
        name: (min(float(s[name].min()) for s in seen), max(float(s[name].max()) for s in seen))
        for name in sources
    }
    ranges = {name: Range(*span, "minmax", *span, 0.0) for name, span in spans.items()}
    session = onnxruntime.InferenceSession(
        quantise_graph(graph, ranges, X86).model.SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    int8 = np.concatenate([session.run(None, feed)[0] for feed in feeds])

    audio = Standardiser(spec).audio(mfcc)
    quantisation = FakeQuantisation(net)
    quantisation.observing = True
    with torch.no_grad(), quantisation:
        exact = net.head(audio, frames).numpy()
        quantisation.observing = False
        ours = net.head(audio, frames).numpy()
    error, wanted = (ours - exact).ravel(), (int8 - exact).ravel()
    cosine = error @ wanted / np.linalg.norm(error) / np.linalg.norm(wanted)
    assert np.abs(wanted).max() > 0.1 * exact.std(), "nothing was spoilt"
    # The graph also rounds what leaves a layer, and keeps a few narrow layers in float (0.99).
    assert cosine > 0.95
