"""The compact encoder as engines run it: one convolution for each block, pixels scaled within."""

from __future__ import annotations

from torch import Tensor, nn

from mer.models.compact import BranchedConv, CompactFace
from mer_export.network.encoder import PixelScaling
from mer_export.network.folding import fold
from mer_runtime.spec import VideoSpec


class DeploymentCompact(nn.Module):
    """Raw crops (N, S, S, 3), float32 in 0 to 255, to frame features (N, 256)."""

    def __init__(self, encoder: CompactFace, video: VideoSpec) -> None:
        super().__init__()
        convs = [block.fold() for block in encoder.blocks if isinstance(block, BranchedConv)]
        self.scaling = PixelScaling(video)
        convs[0] = self.scaling.absorb(convs[0])
        layers: list[nn.Module] = []
        for conv in convs:
            layers += [conv, nn.ReLU()]
        self.layers = nn.Sequential(*layers, *fold(encoder.expand))

    def forward(self, crops: Tensor) -> Tensor:
        x = self.scaling(crops.permute(0, 3, 1, 2))
        features: Tensor = self.layers(x).mean(dim=(2, 3))
        return features
