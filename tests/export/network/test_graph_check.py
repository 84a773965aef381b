"""What is exported is within what a device runs: its graphs pass the check for others' graphs."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from mer import Checkpoint
from mer.models import ENCODERS, FUSIONS, build_model
from mer_export.network.graphs import export_graphs, to_half
from mer_runtime.engines.graph_check import check_graph
from mer_runtime.spec import Spec, VideoSpec


class Patches(nn.Module):
    """An encoder as others have one: patches, a token, attention."""

    feature_width = 48

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 16, stride=16)
        self.token = nn.Parameter(torch.zeros(1, 1, 48))
        self.place = nn.Parameter(torch.zeros(1, 17, 48))
        layer = nn.TransformerEncoderLayer(48, 4, 96, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def features(self, crops: Tensor) -> Tensor:
        x = self.patch(crops).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.place
        return self.layers(x)[:, 0]


class Residual(nn.Module):
    """Another: normalisations, residuals, pooling, a shuffle of channels."""

    feature_width = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.SiLU())
        self.body = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=4), nn.Hardswish())
        self.pool = nn.AdaptiveAvgPool2d(1)

    def features(self, crops: Tensor) -> Tensor:
        x = self.stem(crops)
        n, c, h, w = x.shape
        x = x + self.body(x).view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = nn.functional.leaky_relu(nn.functional.avg_pool2d(x, 2))
        return self.pool(x).flatten(1)


MADE = {"patches": Patches, "residual": Residual}
#: With every fusion, and in the next test.
TRACED = ("residual", "efficientface")


@pytest.mark.parametrize(
    ("fusion", "encoder"),
    [
        *((fusion, "residual") for fusion in FUSIONS),
        *(("ia", encoder) for encoder in (*ENCODERS, *MADE) if encoder not in TRACED),
    ],
)
def test_exported_graphs_pass(fusion: str, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if encoder in MADE:
        monkeypatch.setitem(ENCODERS, encoder, MADE[encoder])
    spec = Spec(video=VideoSpec(frames=5, size=64), fusion=fusion, encoder=encoder)
    check_graphs(Checkpoint(build_model(spec).eval(), spec))


def test_exported_graphs_of_the_largest_encoder_pass(small_model: Any, graphs_once: None) -> None:
    """Those that other tests have traced, as that takes long."""
    checkpoint = Checkpoint(*small_model)
    assert (checkpoint.spec.fusion, checkpoint.spec.encoder) == ("ia", "efficientface")
    check_graphs(checkpoint)


def check_graphs(checkpoint: Checkpoint) -> None:
    for name, model in export_graphs(checkpoint).items():
        for form in (model, to_half(model)):
            check_graph(form.SerializeToString(), checkpoint.spec.video.frames)
            assert form.graph.node, name


def test_graph_of_another_operator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check isn't one that everything passes."""
    monkeypatch.setitem(ENCODERS, "residual", Residual)
    spec = Spec(video=VideoSpec(frames=5, size=64), encoder="residual")
    model = export_graphs(Checkpoint(build_model(spec).eval(), spec)).head
    foreign = onnx.ModelProto()
    foreign.CopyFrom(model)
    foreign.graph.node[-1].op_type = "Loop"
    with pytest.raises(ValueError, match="the operator Loop"):
        check_graph(foreign.SerializeToString(), dataclasses.replace(spec).video.frames)
