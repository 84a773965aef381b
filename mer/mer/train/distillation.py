"""Distillation: a student is trained on what a teacher makes of the same inputs as well.

First frame features: a linear layer of its own, dropped after training, turns the student's
features into the teacher's (FitNets, Romero et al., ICLR 2015). Then logits: the teacher's
softened probabilities stand beside the labels (Hinton et al., 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Distillation:
    """How much a teacher counts beside the labels.

    Attributes:
        logits: share of the loss that the teacher's probabilities have; the labels have the rest.
        features: weight of the features' loss, which is added.
        temperature: divides both sides' logits, so that the teacher's second choices count.
    """

    logits: float = 0.5
    features: float = 1.0
    temperature: float = 2.0


def compare_logits(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened answers (N, classes), scaled back to their rate."""
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


class FeatureMatch(nn.Module):
    """A linear layer from the student's features to the teacher's, and how far it misses."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.project = nn.Linear(student, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean of 1 - cosine over all (…, F) features but those that the teacher has as zeros."""
        alike = functional.cosine_similarity(self.project(student), teacher, dim=-1)
        return (1 - alike)[teacher.abs().sum(dim=-1) > 0].mean().nan_to_num()


def blend_losses(
    labels: Tensor, student: Tensor, teacher: Tensor, distillation: Distillation
) -> Tensor:
    """The labels' loss and the teacher's, by their shares."""
    share = distillation.logits
    taught = compare_logits(student, teacher, distillation.temperature)
    return torch.lerp(labels, taught, share)
