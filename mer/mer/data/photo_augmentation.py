"""What training changes about a still photo: geometry, light and blemishes as a device has them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class Draw(Protocol):
    """Values (N, *shape) between two bounds, for each photo anew."""

    def __call__(self, low: float, high: float, *shape: int) -> Tensor: ...


@dataclass(frozen=True)
class PhotoAugmentation:
    """How far photos are varied; all is drawn for each photo anew.

    Attributes:
        angle: degrees to either side.
        zoom: lowest and highest factor on the picture's side.
        shift: of the picture's side, to any side: a face box jitters.
        stretch: factor by which one side may grow at most.
        contrast: lowest and highest factor.
        brightness: most that is added or taken, of the full scale.
        gamma: highest exponent, and, inverted, the lowest.
        tint: most by which a channel's factor differs from 1: white balance.
        blur: probability of being shrunk to a quarter and enlarged again: a far or moving face.
        noise: highest standard deviation, of the full scale.
        hole: side of the largest rectangle blanked, of the picture's; half of the photos have one.
        mixing: probability that a photo is blended with another (mixup, Zhang et al. 2018).
    """

    angle: float = 20.0
    zoom: tuple[float, float] = (0.8, 1.25)
    shift: float = 0.09
    stretch: float = 1.12
    contrast: tuple[float, float] = (0.6, 1.4)
    brightness: float = 0.2
    gamma: float = 1.5
    tint: float = 0.1
    blur: float = 0.15
    noise: float = 0.04
    hole: float = 0.45
    mixing: float = 0.5

    def scaled(self, strength: float) -> PhotoAugmentation:
        """One that varies photos ``strength`` times as far: 0 only flips them."""

        def near_one(factor: float) -> float:
            return float(factor**strength)

        return PhotoAugmentation(
            angle=self.angle * strength,
            zoom=(near_one(self.zoom[0]), near_one(self.zoom[1])),
            shift=self.shift * strength,
            stretch=near_one(self.stretch),
            contrast=(near_one(self.contrast[0]), near_one(self.contrast[1])),
            brightness=self.brightness * strength,
            gamma=near_one(self.gamma),
            tint=self.tint * strength,
            blur=self.blur * strength,
            noise=self.noise * strength,
            hole=self.hole * strength,
            mixing=self.mixing * strength,
        )


def augment(
    pixels: Tensor,
    size: int,
    generator: np.random.Generator,
    augmentation: PhotoAugmentation | None = None,
) -> Tensor:
    """Photos (N, S, S, C) uint8 to varied crops (N, 3, size, size) float32 in [0, 1]."""
    plan = augmentation or PhotoAugmentation()
    n = len(pixels)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        values = generator.uniform(low, high, (n, *shape)).astype(np.float32)
        return torch.from_numpy(values).to(pixels.device)

    crops = pixels.movedim(-1, 1).float().div(255)
    angle = draw(-plan.angle, plan.angle) * (math.pi / 180)
    # The grid says where an output pixel comes from, so a larger face takes a smaller factor.
    low, high = plan.zoom
    zoom = 1 / torch.exp(draw(math.log(low), math.log(high)))
    stretch = torch.exp(draw(-math.log(plan.stretch), math.log(plan.stretch)) / 2)
    flip = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    most = 2 * plan.shift
    matrix = torch.stack(
        (
            torch.stack((cos * flip * stretch, -sin / stretch, draw(-most, most)), 1),
            torch.stack((sin * flip * stretch, cos / stretch, draw(-most, most)), 1),
        ),
        1,
    )
    grid = functional.affine_grid(matrix, [n, 1, size, size], align_corners=False)
    crops = functional.grid_sample(crops, grid, padding_mode="border", align_corners=False)
    blurred = functional.interpolate(
        functional.avg_pool2d(crops, 4), size=(size, size), mode="bilinear"
    )
    crops = torch.where(_chance(draw, plan.blur), blurred, crops)
    mean = crops.mean(dim=(1, 2, 3), keepdim=True)
    crops = (crops - mean) * draw(*plan.contrast, 1, 1, 1) + mean
    crops = (crops + draw(-plan.brightness, plan.brightness, 1, 1, 1)).clamp(0, 1)
    crops = crops ** torch.exp(draw(-1, 1, 1, 1, 1) * math.log(plan.gamma))
    crops = _blank(crops, plan.hole, draw)
    sigma = draw(0, plan.noise, 1, 1, 1) * (draw(0, 1, 1, 1, 1) < 0.5)
    rough = generator.standard_normal(tuple(crops.shape), np.float32)
    crops = crops + sigma * torch.from_numpy(rough).to(pixels.device)
    return (crops * draw(1 - plan.tint, 1 + plan.tint, 3, 1, 1)).clamp(0, 1)


def enlarge(pixels: Tensor, size: int) -> Tensor:
    """Photos (N, S, S, C) uint8 as they are, (N, 3, size, size) float32 in [0, 1]."""
    crops = pixels.movedim(-1, 1).float().div(255)
    return resize_crops(crops, size).expand(-1, 3, -1, -1)


def resize_crops(crops: Tensor, size: int) -> Tensor:
    """Crops (N, C, S, S) float32 to (N, C, size, size)."""
    if crops.shape[-1] == size:
        return crops
    small = crops.shape[-1] > size
    return functional.interpolate(crops, size=(size, size), mode="bilinear", antialias=small)


def mix(
    crops: Tensor, targets: Tensor, probability: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend photos with others of the batch, and their targets (N, classes) with these.

    A share drawn from 0 to 0.5 comes from the other photo.
    """
    n = len(crops)
    share = generator.uniform(0, 0.5, n) * (generator.random(n) < probability)
    other = torch.from_numpy(generator.permutation(n)).to(crops.device)
    given = torch.from_numpy(share.astype(np.float32)).to(crops.device)
    crops = torch.lerp(crops, crops[other], given[:, None, None, None])
    return crops, torch.lerp(targets, targets[other], given[:, None])


def _chance(draw: Draw, probability: float) -> Tensor:
    chosen: Tensor = draw(0, 1, 1, 1, 1) < probability
    return chosen


def _blank(crops: Tensor, widest: float, draw: Draw) -> Tensor:
    """Fill a rectangle in half of the photos with the photo's mean (Zhong et al., AAAI 2020)."""
    size = crops.shape[-1]
    mean = crops.mean(dim=(2, 3), keepdim=True)
    height, width = ((draw(0, widest) * size).long() for _ in range(2))
    top = (draw(0, 1) * (size - height)).long()
    left = (draw(0, 1) * (size - width)).long()
    ticks = torch.arange(size, device=crops.device)
    rows = (ticks >= top[:, None]) & (ticks < (top + height)[:, None])
    columns = (ticks >= left[:, None]) & (ticks < (left + width)[:, None])
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(hole & _chance(draw, 0.5), mean, crops)
