"""Learning from a teacher's features and answers."""

from __future__ import annotations

import pytest
import torch

from mer.train.distillation import Distillation, FeatureMatch, blend_losses, compare_logits


def test_equal_answers_cost_nothing() -> None:
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert compare_logits(logits, logits + 3, 2.0) == pytest.approx(0, abs=1e-5)
    assert compare_logits(logits, -logits, 2.0) > 0.1


def test_divergence_recomputed() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p = torch.softmax(teacher / 2, dim=1)
    q = torch.softmax(student / 2, dim=1)
    expected = 4 * float((p * (p / q).log()).sum())
    assert compare_logits(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_blend_is_by_share() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    taught = compare_logits(student, teacher, 2.0)
    plan = Distillation(logits=0.25, temperature=2.0)
    mixed = blend_losses(torch.tensor(8.0), student, teacher, plan)
    assert mixed.item() == pytest.approx(6.0 + 0.25 * taught.item())


def test_features_are_matched_up_to_a_linear_layer() -> None:
    """A student whose features are a turn of the teacher's has nothing left to learn."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(256, 6, generator=generator)
    student = teacher @ torch.randn(6, 6, generator=generator)
    torch.manual_seed(0)
    match = FeatureMatch(6, 6)
    before = match(student, teacher).item()
    optimizer = torch.optim.Adam(match.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        match(student, teacher).backward()
        optimizer.step()
    assert match(student, teacher).item() < 0.05 < before


def test_missing_faces_are_not_matched() -> None:
    match = FeatureMatch(3, 3)
    student = torch.ones(2, 4, 3)
    teacher = torch.ones(2, 4, 3)
    teacher[1] = 0
    both, seen = match(student, teacher), match(student[:1], teacher[:1])
    assert both.item() == pytest.approx(seen.item())
    assert match(student, torch.zeros(2, 4, 3)).item() == 0
