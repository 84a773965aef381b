"""Photos varied as a device sees faces."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mer.data.photo_augmentation import PhotoAugmentation, augment, enlarge, mix

#: Nothing but mirror images.
STILL = PhotoAugmentation(
    angle=0,
    zoom=(1, 1),
    shift=0,
    stretch=1,
    contrast=(1, 1),
    brightness=0,
    gamma=1,
    tint=0,
    blur=0,
    noise=0,
    hole=0,
)


@pytest.fixture
def halves() -> torch.Tensor:
    """64 photos, dark in a corner."""
    pixels = torch.full((64, 48, 48, 1), 128, dtype=torch.uint8)
    pixels[:, :14, :14] = 10
    return pixels


def test_varied_pictures(halves: torch.Tensor) -> None:
    crops = augment(halves, 32, np.random.default_rng(0))
    assert crops.shape == (64, 3, 32, 32)
    assert crops.min() >= 0
    assert crops.max() <= 1
    assert crops.std(dim=0).mean() > 0.05
    again = augment(halves, 32, np.random.default_rng(0))
    assert torch.equal(crops, again)


def test_half_are_mirrored_and_nothing_else(halves: torch.Tensor) -> None:
    crops = augment(halves, 48, np.random.default_rng(0), STILL)
    plain = enlarge(halves, 48)
    kept = (crops - plain).abs().amax(dim=(1, 2, 3)) < 1e-5
    mirrored = (crops - plain.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert 20 < kept.sum() < 44
    assert (kept ^ mirrored).all()


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("angle", 40.0, 0.003),
        ("zoom", (0.5, 2.0), 0.003),
        ("shift", 0.3, 0.003),
        ("stretch", 2.0, 0.003),
        ("contrast", (0.2, 2.0), 0.02),
        ("brightness", 0.3, 0.02),
        ("gamma", 3.0, 0.02),
        ("tint", 0.3, 0.02),
        ("blur", 1.0, 0.003),
        ("noise", 0.2, 0.02),
        ("hole", 0.9, 0.003),
    ],
)
def test_each_variation_shows(halves: torch.Tensor, name: str, value: object, least: float) -> None:
    plan = dataclasses.replace(STILL, **{name: value})
    crops = augment(halves, 48, np.random.default_rng(1), plan)
    still = augment(halves, 48, np.random.default_rng(1), STILL)
    assert (crops - still).abs().mean() > least


def test_weaker_variation() -> None:
    plan = PhotoAugmentation()
    assert plan.scaled(1) == plan
    half = plan.scaled(0.5)
    assert (half.angle, half.mixing) == (10, 0.25)
    assert half.gamma**2 == pytest.approx(plan.gamma)
    still = plan.scaled(0)
    assert (still.zoom, still.contrast, still.stretch, still.hole) == ((1, 1), (1, 1), 1, 0)


def test_zoom_is_of_the_face() -> None:
    """A factor of 2 shows a spot at twice its size."""
    pixels = torch.zeros((8, 48, 48, 1), dtype=torch.uint8)
    pixels[:, 20:28, 20:28] = 255
    plan = dataclasses.replace(STILL, zoom=(2, 2))
    crops = augment(pixels, 48, np.random.default_rng(0), plan)
    assert (crops[:, 0] > 0.5).sum(dim=(1, 2)).float().mean() == pytest.approx(16 * 16, rel=0.1)


def test_blends_keep_the_sum_of_targets(halves: torch.Tensor) -> None:
    crops = enlarge(halves, 16).clone()
    crops[:32] = 1.0
    targets = torch.eye(2)[torch.arange(64) // 32]
    mixed, blended = mix(crops, targets, 1.0, np.random.default_rng(0))
    assert torch.allclose(blended.sum(dim=1), torch.ones(64))
    assert (blended.max(dim=1).values >= 0.5).all()  # its own label stays the first
    # The first pixel is 1 in one class's photos, and 10 / 255 in the other's.
    expected = blended[:, 0] + blended[:, 1] * 10 / 255
    assert torch.allclose(mixed[:, 0, 0, 0], expected, atol=1e-5)
    same, kept = mix(crops, targets, 0.0, np.random.default_rng(0))
    assert torch.equal(same, crops)
    assert torch.equal(kept, targets)
