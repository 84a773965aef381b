"""The three fusions of the paper's section 5.2 around the two branches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mer.models.attention import CrossAttention, TransformerBlock
from mer.models.branches import AUDIO_CHANNELS, VISUAL_CHANNELS, AudioBranch, VisualBranch
from mer_runtime.spec import Fusion, Spec

EARLY_AUDIO, EARLY_VISUAL = AUDIO_CHANNELS[1], VISUAL_CHANNELS[1]
LATE_AUDIO, LATE_VISUAL = AUDIO_CHANNELS[3], VISUAL_CHANNELS[3]


class MultimodalNet(nn.Module):
    """Face crops and MFCCs to emotion logits, fused by ``fusion``.

    Inputs are standardised (``mer.models.Standardiser``): audio (B, n_mfcc, T) and video
    (B, 15, 3, S, S), float32. Output: logits (B, classes). ``head`` takes frame features
    (B, 15, 1024) instead of crops, so that they can be cached.
    """

    def __init__(
        self, fusion: Fusion = "ia", *, num_classes: int = 8, n_mfcc: int = 10, num_heads: int = 1
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.audio_model = AudioBranch(num_classes, n_mfcc)
        self.visual_model = VisualBranch(num_classes)
        # Names and their ``av``/``va`` order follow the published checkpoints: ``av`` has
        # keys from the video and queries from the audio, ``va`` the other way round.
        if fusion == "lt":
            self.av = TransformerBlock(LATE_VISUAL, LATE_AUDIO, LATE_AUDIO, num_heads)
            self.va = TransformerBlock(LATE_AUDIO, LATE_VISUAL, LATE_VISUAL, num_heads)
        else:
            block = CrossAttention if fusion == "ia" else TransformerBlock
            self.av1: Any = block(EARLY_VISUAL, EARLY_AUDIO, EARLY_AUDIO, num_heads)
            self.va1: Any = block(EARLY_AUDIO, EARLY_VISUAL, EARLY_VISUAL, num_heads)
        self.classifier_1 = nn.Sequential(nn.Linear(LATE_AUDIO + LATE_VISUAL, num_classes))

    def encode(self, video: Tensor) -> Tensor:
        """Crops (B, 15, 3, S, S) to frame features (B, 15, 1024)."""
        frames = self.visual_model.features(video.flatten(0, 1))
        return frames.view(*video.shape[:2], -1)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        return self.head(audio, self.encode(video))

    def head(self, audio: Tensor, frames: Tensor) -> Tensor:
        """MFCCs (B, n_mfcc, T) and frame features (B, 15, 1024) to logits (B, classes)."""
        a = self.audio_model.early(audio)
        v = self.visual_model.early(frames)
        if self.fusion == "lt":
            a, v = self.audio_model.late(a), self.visual_model.late(v)
            a, v = self._attend(self.av, v, a), self._attend(self.va, a, v)
        else:
            a, v = self._exchange(a, v)
            a, v = self.audio_model.late(a), self.visual_model.late(v)
        logits: Tensor = self.classifier_1(torch.cat((a.mean(dim=-1), v.mean(dim=-1)), dim=-1))
        return logits

    def _exchange(self, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Let the branches meet between their stages (``ia`` and ``it``)."""
        if self.fusion == "it":
            return a + self._attend(self.av1, v, a), v + self._attend(self.va1, a, v)
        # The paper sums a softmax over its rows, which is all ones; the published code sums
        # over queries, so each modality is weighted by how much the other looks at it.
        keys_a, keys_v = a.transpose(1, 2), v.transpose(1, 2)
        weight_v: Tensor = self.av1.scores(keys_v, keys_a).mean(dim=1).sum(dim=-2, keepdim=True)
        weight_a: Tensor = self.va1.scores(keys_a, keys_v).mean(dim=1).sum(dim=-2, keepdim=True)
        return a * weight_a, v * weight_v

    @staticmethod
    def _attend(block: nn.Module, keys: Tensor, queries: Tensor) -> Tensor:
        """Apply a block to (B, C, N) sequences."""
        out: Tensor = block(keys.transpose(1, 2), queries.transpose(1, 2))
        return out.transpose(1, 2)


def build_model(spec: Spec) -> MultimodalNet:
    """A freshly initialised network for ``spec``."""
    return MultimodalNet(
        spec.fusion,
        num_classes=len(spec.labels),
        n_mfcc=spec.audio.n_mfcc,
        num_heads=spec.num_heads,
    )
