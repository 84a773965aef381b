"""The paper's Table 1: the visual and the audio branch, each in two stages.

Stages (``early``, ``late``) are separate methods because the fusions meet between or after them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mer.models.efficientface import EfficientFace

AUDIO_CHANNELS = (64, 128, 256, 128)
VISUAL_CHANNELS = (64, 64, 128, 128)


class FrameBranch(nn.Module):
    """A face encoder on each crop, then 1-D convolutions over time.

    The encoder is a base class beside this one, not a member, because published checkpoints name
    its parameters ``visual_model.conv1`` and so on (``join_encoder``). It has ``features``, and
    ``feature_width``, their number F. ``classifier_1`` is the single-modality head.
    """

    if TYPE_CHECKING:  # the encoder's
        feature_width: int
        features: Callable[[Tensor], Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()  # the encoder
        self._encoder_names = frozenset(self.state_dict())
        channels = self.feature_width
        for i, out in enumerate(VISUAL_CHANNELS):
            self.add_module(
                f"conv1d_{i}",
                nn.Sequential(
                    nn.Conv1d(channels, out, 3, padding=1), nn.BatchNorm1d(out), nn.ReLU()
                ),
            )
            channels = out
        self.classifier_1 = nn.Sequential(nn.Linear(channels, num_classes))

    def encoder_weights(self) -> dict[str, Tensor]:
        """Weights and statistics of the encoder alone, by name."""
        weights = self.state_dict()
        return {name: value for name, value in weights.items() if name in self._encoder_names}

    def early(self, frames: Tensor) -> Tensor:
        """Frame features (B, 15, F) to (B, 64, 15)."""
        return _apply(self, (0, 1), frames.transpose(1, 2))

    def late(self, x: Tensor) -> Tensor:
        """(B, 64, 15) to (B, 128, 15)."""
        return _apply(self, (2, 3), x)

    def forward(self, video: Tensor) -> Tensor:
        """Face only: (B, 15, 3, S, S) to logits (B, classes)."""
        frames = self.features(video.flatten(0, 1)).view(*video.shape[:2], -1)
        logits: Tensor = self.classifier_1(self.late(self.early(frames)).mean(dim=-1))
        return logits


class VisualBranch(FrameBranch, EfficientFace):
    """The paper's."""


def join_encoder(encoder: type[nn.Module], num_classes: int) -> FrameBranch:
    """A fresh visual branch with ``encoder``, which is made without arguments."""
    if encoder is EfficientFace:
        return VisualBranch(num_classes)
    branch: Any = type(f"{encoder.__name__}Branch", (FrameBranch, encoder), {})
    joined: FrameBranch = branch(num_classes)
    return joined


class AudioBranch(nn.Module):
    """Four 1-D convolutions over MFCC frames, each with a max-pool of stride 1."""

    def __init__(self, num_classes: int, n_mfcc: int) -> None:
        super().__init__()
        channels = n_mfcc
        for i, out in enumerate(AUDIO_CHANNELS):
            self.add_module(
                f"conv1d_{i}",
                nn.Sequential(
                    nn.Conv1d(channels, out, 3), nn.BatchNorm1d(out), nn.ReLU(), nn.MaxPool1d(2, 1)
                ),
            )
            channels = out
        self.classifier_1 = nn.Sequential(nn.Linear(channels, num_classes))

    def early(self, audio: Tensor) -> Tensor:
        """MFCCs (B, n_mfcc, T) to (B, 128, T - 6)."""
        return _apply(self, (0, 1), audio)

    def late(self, x: Tensor) -> Tensor:
        """(B, 128, T - 6) to (B, 128, T - 12)."""
        return _apply(self, (2, 3), x)

    def forward(self, audio: Tensor) -> Tensor:
        """Voice only: (B, n_mfcc, T) to logits (B, classes)."""
        logits: Tensor = self.classifier_1(self.late(self.early(audio)).mean(dim=-1))
        return logits


def _apply(branch: nn.Module, blocks: tuple[int, ...], x: Tensor) -> Tensor:
    for i in blocks:
        x = branch.get_submodule(f"conv1d_{i}")(x)
    return x
