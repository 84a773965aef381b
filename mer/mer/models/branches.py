"""The paper's Table 1: the visual and the audio branch, each in two stages.

Stages (``early``, ``late``) are separate methods because the fusions meet between or after them.
"""

from __future__ import annotations

from torch import Tensor, nn

from mer.models.efficientface import FEATURES, EfficientFace

AUDIO_CHANNELS = (64, 128, 256, 128)
VISUAL_CHANNELS = (64, 64, 128, 128)


class VisualBranch(EfficientFace):
    """EfficientFace on each crop, then 1-D convolutions over time.

    The encoder is a base class, not a member, because published checkpoints name its
    parameters ``visual_model.conv1`` and so on. ``classifier_1`` is the single-modality head.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        channels = FEATURES
        for i, out in enumerate(VISUAL_CHANNELS):
            self.add_module(
                f"conv1d_{i}",
                nn.Sequential(
                    nn.Conv1d(channels, out, 3, padding=1), nn.BatchNorm1d(out), nn.ReLU()
                ),
            )
            channels = out
        self.classifier_1 = nn.Sequential(nn.Linear(channels, num_classes))

    def early(self, frames: Tensor) -> Tensor:
        """Frame features (B, 15, 1024) to (B, 64, 15)."""
        return _apply(self, (0, 1), frames.transpose(1, 2))

    def late(self, x: Tensor) -> Tensor:
        """(B, 64, 15) to (B, 128, 15)."""
        return _apply(self, (2, 3), x)

    def forward(self, video: Tensor) -> Tensor:
        """Face only: (B, 15, 3, S, S) to logits (B, classes)."""
        frames = self.features(video.flatten(0, 1)).view(*video.shape[:2], -1)
        logits: Tensor = self.classifier_1(self.late(self.early(frames)).mean(dim=-1))
        return logits


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
