"""The three fusions of the paper's section 5.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer.models.attention import CrossAttention, TransformerBlock
from mer.models.network import (
    EARLY_AUDIO,
    EARLY_VISUAL,
    LATE_AUDIO,
    LATE_VISUAL,
    MultimodalNet,
)

# Names of parameters and their ``av``/``va`` order follow the published checkpoints: ``av`` has
# keys from the video and queries from the audio, ``va`` the other way round.


class IntermediateAttention(MultimodalNet):
    """``ia``: between its stages each branch is weighted by how much the other looks at it."""

    def add_fusion(self, num_heads: int) -> None:
        self.av1 = CrossAttention(EARLY_VISUAL, EARLY_AUDIO, EARLY_AUDIO, num_heads)
        self.va1 = CrossAttention(EARLY_AUDIO, EARLY_VISUAL, EARLY_VISUAL, num_heads)

    def meet_early(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        # The paper sums a softmax over its rows, which is all ones; the published code sums
        # over queries, so each modality is weighted by how much the other looks at it.
        keys_a, keys_v = audio.transpose(1, 2), visual.transpose(1, 2)
        weight_v: Tensor = self.av1.scores(keys_v, keys_a).mean(dim=1).sum(dim=-2, keepdim=True)
        weight_a: Tensor = self.va1.scores(keys_a, keys_v).mean(dim=1).sum(dim=-2, keepdim=True)
        return audio * weight_a, visual * weight_v


class GatedAttention(IntermediateAttention):
    """``gated``: as ``ia``, and at the end each modality is weighted by how reliable it looks.

    Each gets a score from its own features; a softmax of the two scores, times two, weights the
    two. So a spoilt voice or face is outvoted. Untrained, both weights are 1, as in ``ia``.
    """

    def add_fusion(self, num_heads: int) -> None:
        super().add_fusion(num_heads)
        self.trust_audio = nn.Linear(LATE_AUDIO, 1)
        self.trust_visual = nn.Linear(LATE_VISUAL, 1)
        for score in (self.trust_audio, self.trust_visual):
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)

    def meet_late(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        scores = (self.trust_audio(audio.mean(dim=-1)), self.trust_visual(visual.mean(dim=-1)))
        weights = 2 * torch.softmax(torch.cat(scores, dim=-1), dim=-1)
        return audio * weights[:, :1, None], visual * weights[:, 1:, None]


class IntermediateTransformer(MultimodalNet):
    """``it``: between its stages each branch gets what a transformer block makes of the other."""

    def add_fusion(self, num_heads: int) -> None:
        self.av1 = TransformerBlock(EARLY_VISUAL, EARLY_AUDIO, EARLY_AUDIO, num_heads)
        self.va1 = TransformerBlock(EARLY_AUDIO, EARLY_VISUAL, EARLY_VISUAL, num_heads)

    def meet_early(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        # In this order: the exported graph, whose calibrations ship, names its sums by it.
        return audio + _attend(self.av1, visual, audio), visual + _attend(self.va1, audio, visual)


class LateTransformer(MultimodalNet):
    """``lt``: behind its stages each branch is what a transformer block makes of the other."""

    def add_fusion(self, num_heads: int) -> None:
        self.av = TransformerBlock(LATE_VISUAL, LATE_AUDIO, LATE_AUDIO, num_heads)
        self.va = TransformerBlock(LATE_AUDIO, LATE_VISUAL, LATE_VISUAL, num_heads)

    def meet_late(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        return _attend(self.av, visual, audio), _attend(self.va, audio, visual)


def _attend(block: nn.Module, keys: Tensor, queries: Tensor) -> Tensor:
    """Apply a block to (B, C, N) sequences."""
    out: Tensor = block(keys.transpose(1, 2), queries.transpose(1, 2))
    return out.transpose(1, 2)
