"""What follows the encoder, made for engines: batch normalisations folded, raw MFCCs in."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mer import Checkpoint
from mer.models import Standardiser


class DeploymentHead(nn.Module):
    """Raw MFCCs (B, n_mfcc, T) and frame features (B, frames, F) to logits (B, classes)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.standardiser = Standardiser(checkpoint.spec)
        self.network = copy.deepcopy(checkpoint.model).eval()
        for branch in (self.network.audio_model, self.network.visual_model):
            for name, module in branch.named_children():
                if name.startswith("conv1d_"):
                    setattr(branch, name, fold_batch_norm(module))

    def forward(self, mfcc: Tensor, features: Tensor) -> Tensor:
        return self.network.head(self.standardiser.audio(mfcc), features)


def fold_batch_norm(block: Any) -> nn.Sequential:
    """A block of convolution, batch normalisation and more, the second within the first."""
    conv, norm, *rest = block
    return nn.Sequential(fuse_conv_bn_eval(conv, norm), *rest)
