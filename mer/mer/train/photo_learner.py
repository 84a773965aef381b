"""What trains a face encoder on photos: the recipe, and the net with its average and optimiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from mer.data.photo_augmentation import PhotoAugmentation, augment, mix
from mer.data.photos import Photos
from mer.errors import TrainingError
from mer.train.averaging import move_average
from mer.train.distillation import Distillation, FeatureMatch, blend_losses
from mer.train.photo_net import PhotoNet, PhotoTeacher
from mer.train.runs import Row

#: Batches over which the averaged weights' batch statistics are taken.
STATISTICS_BATCHES = 30
#: From this size on most epochs are at half of it, if nothing else is asked for.
HALVED_FROM = 192


@dataclass(frozen=True)
class PretrainingRecipe:
    """How an encoder is trained on photos.

    Smaller crops cost less, so most epochs may see those. Each of the two phases has a
    learning rate of its own, which warms up and falls to zero: the features of smaller crops
    are nearly useless at the real size until they are trained on.

    Attributes:
        size: pixels of the crops that the encoder is for.
        small_size: pixels of most epochs' crops. None is half of ``size`` from 192 on, else
            ``size``.
        full_size_share: of the epochs, where most are at a smaller size.
        ema_decay: of the moving average of the weights, which is what is kept.
        balance: 0 draws photos as they come, 1 as many of each class. Between, a class of share
            p is drawn in proportion to p to the power of 1 - ``balance``.
    """

    epochs: int = 30
    size: int = 224
    small_size: int | None = None
    full_size_share: float = 1 / 3
    batch_size: int = 64
    learning_rate: float = 0.05
    full_size_learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    balance: float = 0.5
    seed: int = 1
    augmentation: PhotoAugmentation = field(default_factory=PhotoAugmentation)
    distillation: Distillation = field(default_factory=Distillation)

    def __post_init__(self) -> None:
        if not 0 < self.first_size <= self.size:
            raise TrainingError(f"small_size is {self.small_size}: give at most {self.size}")
        if not 0 <= self.balance <= 1:
            raise TrainingError(f"balance is {self.balance}: give 0 to 1")

    @property
    def first_size(self) -> int:
        """Pixels of the first epochs' crops."""
        if self.small_size is None:
            return self.size // 2 if self.size >= HALVED_FROM else self.size
        return self.small_size

    @property
    def small_epochs(self) -> int:
        """Epochs at ``first_size``, where that is smaller."""
        if self.first_size == self.size:
            return 0
        return self.epochs - max(1, round(self.full_size_share * self.epochs))


class PhotoLearner:
    """The net, its moving average and its optimiser."""

    def __init__(
        self,
        net: PhotoNet,
        recipe: PretrainingRecipe,
        train: Photos,
        teacher: PhotoTeacher | None,
        device: str,
    ) -> None:
        self.net, self.recipe, self.train, self.device = net, recipe, train, device
        self.teacher = teacher
        self.average = copy.deepcopy(net).eval()
        self.match: FeatureMatch | None = None
        weights = list(net.parameters())
        if teacher:
            self.match = FeatureMatch(net.feature_width, teacher.feature_width).to(device)
            weights += self.match.parameters()
        self.optimizer = torch.optim.SGD(
            weights,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )

    def run_epoch(self, epoch: int, step: Callable[[int, int], None] | None) -> Row:
        """Train over as many photos as there are; epochs count from 0."""
        recipe = self.recipe
        size = recipe.first_size if epoch < recipe.small_epochs else recipe.size
        batches = len(self.train.classes) // recipe.batch_size
        # Drawn from (seed, epoch), so that a resumed run draws what an unbroken one does.
        generator = np.random.default_rng((recipe.seed, epoch))
        order = draw_rows(self.train, batches * recipe.batch_size, recipe.balance, generator)
        losses = []
        self.net.train()
        for i, rows in enumerate(np.split(order, batches)):
            rate = find_learning_rate(recipe, epoch + i / batches)
            self.optimizer.param_groups[0]["lr"] = rate
            loss = self._learn(rows, size, generator)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is not finite in epoch {epoch + 1}, batch {i + 1}")
            weights = self.average.parameters(), self.net.parameters()
            move_average(*weights, recipe.ema_decay, epoch * batches + i)
            losses.append(loss)
            if step:
                step(epoch * batches + i + 1, recipe.epochs * batches)
        self._refresh_statistics(size, generator)
        mean = float(np.mean(losses))
        return {"epoch": epoch + 1, "size": size, "lr": rate, "train_loss": mean}

    def _learn(self, rows: NDArray[np.int64], size: int, generator: np.random.Generator) -> float:
        recipe = self.recipe
        pixels = torch.from_numpy(self.train.pixels[rows]).to(self.device)
        classes = torch.from_numpy(self.train.classes[rows]).to(self.device)
        targets = functional.one_hot(classes, len(self.train.labels)).float()
        crops = augment(pixels, size, generator, recipe.augmentation)
        crops, targets = mix(crops, targets, recipe.augmentation.mixing, generator)
        features = self.net.features(crops)
        logits = self.net.classify(features)
        loss = functional.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        if self.teacher and self.match:
            taught = self.teacher.answer(crops)
            loss = blend_losses(loss, logits, taught.logits, recipe.distillation)
            loss = loss + recipe.distillation.features * self.match(features, taught.features)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def _refresh_statistics(self, size: int, generator: np.random.Generator) -> None:
        """Give the averaged weights batch statistics of their own: those of the net lag behind."""
        for module in self.average.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the plain mean over all batches
        self.average.train()
        for _ in range(STATISTICS_BATCHES):
            rows = draw_rows(self.train, self.recipe.batch_size, self.recipe.balance, generator)
            pixels = torch.from_numpy(self.train.pixels[rows]).to(self.device)
            self.average(augment(pixels, size, generator, self.recipe.augmentation))
        self.average.eval()

    def state(self) -> dict[str, Any]:
        """All that ``load_state`` needs to go on from here, loadable with ``weights_only``."""
        return {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "match": self.match.state_dict() if self.match else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        if self.match:
            self.match.load_state_dict(state["match"])
        self.optimizer.load_state_dict(state["optimizer"])


def draw_rows(
    photos: Photos, n: int, balance: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rows of one epoch; ``PretrainingRecipe.balance`` says how often rare classes are drawn."""
    counts = np.bincount(photos.classes, minlength=len(photos.labels))
    weights = 1.0 / counts[photos.classes] ** balance
    return generator.choice(len(photos.classes), n, p=weights / weights.sum())


def find_learning_rate(recipe: PretrainingRecipe, epoch: float) -> float:
    """In each phase a linear warm-up over the first 5 %, then a cosine to zero."""
    small = recipe.small_epochs
    if epoch < small:
        peak, progress = recipe.learning_rate, epoch / small
    else:
        peak = recipe.full_size_learning_rate if small else recipe.learning_rate
        progress = (epoch - small) / (recipe.epochs - small)
    warm = min(1.0, 0.1 + progress / 0.05)
    return peak * warm * 0.5 * (1 + math.cos(math.pi * progress))
