"""Two branches and what lies around any fusion of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer.models.branches import AUDIO_CHANNELS, VISUAL_CHANNELS, AudioBranch, join_encoder
from mer.models.efficientface import EfficientFace

#: Channels of each branch behind its first stage, and behind its second.
EARLY_AUDIO, EARLY_VISUAL = AUDIO_CHANNELS[1], VISUAL_CHANNELS[1]
LATE_AUDIO, LATE_VISUAL = AUDIO_CHANNELS[3], VISUAL_CHANNELS[3]


class MultimodalNet(nn.Module):
    """Face crops and MFCCs to emotion logits; a fusion derives from it.

    Inputs are standardised (``mer.models.standardisation``): audio (B, n_mfcc, T) and video
    (B, 15, 3, S, S), float32. Output: logits (B, classes). ``head`` takes frame features
    (B, 15, F) instead of crops, so that they can be cached.

    A fusion has ``add_fusion`` and one of ``meet_early`` and ``meet_late``, or both. They get and
    give sequences (B, C, N); the channels C stay what they are, N may become another.
    """

    #: Its name in ``FUSIONS``, where ``build_model`` made it.
    fusion = ""

    def __init__(
        self,
        encoder: type[nn.Module] = EfficientFace,
        *,
        num_classes: int = 8,
        n_mfcc: int = 10,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        self.audio_model = AudioBranch(num_classes, n_mfcc)
        self.visual_model = join_encoder(encoder, num_classes)
        self.add_fusion(num_heads)
        self.classifier_1 = nn.Sequential(nn.Linear(LATE_AUDIO + LATE_VISUAL, num_classes))

    def add_fusion(self, num_heads: int) -> None:
        """Set the fusion's own modules; checkpoints name weights as the attributes are named."""

    def meet_early(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse between the stages: (B, 128, Na) and (B, 64, 15)."""
        return audio, visual

    def meet_late(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse behind the stages: (B, 128, Na) and (B, 128, 15)."""
        return audio, visual

    def encode(self, video: Tensor) -> Tensor:
        """Crops (B, 15, 3, S, S) to frame features (B, 15, F)."""
        frames: Tensor = self.visual_model.features(video.flatten(0, 1))
        return frames.view(*video.shape[:2], -1)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        return self.head(audio, self.encode(video))

    def head(self, audio: Tensor, frames: Tensor) -> Tensor:
        """MFCCs (B, n_mfcc, T) and frame features (B, 15, F) to logits (B, classes)."""
        a, v = self.meet_early(self.audio_model.early(audio), self.visual_model.early(frames))
        a, v = self.meet_late(self.audio_model.late(a), self.visual_model.late(v))
        logits: Tensor = self.classifier_1(torch.cat((a.mean(dim=-1), v.mean(dim=-1)), dim=-1))
        return logits
