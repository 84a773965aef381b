"""Pre-training of the encoder on still face photos, 7 classes (paper, 5.1.1: AffectNet)."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from mer.data.photos import Photos, load_photos
from mer.errors import TrainingError
from mer.models.efficientface import FEATURES, EfficientFace
from mer.train.runs import load_state
from mer_runtime.errors import OutputError
from mer_runtime.files import write_file

STATE_FILE = "last.pt"
ENCODER_FILE = "encoder.safetensors"
METRICS_FILE = "metrics.csv"
#: Batches over which the averaged weights' batch statistics are taken.
STATISTICS_BATCHES = 30
METRICS_FIELDS = ("epoch", "size", "lr", "train_loss", "test_prec1", "test_uar")


@dataclass(frozen=True)
class PretrainingRecipe:
    """Most epochs at half size, which costs a quarter, and the last ones at the real size.

    Each of the two phases has a learning rate of its own, which warms up and falls to zero: the
    features of half-size crops are nearly useless at the real size until they are trained on.
    """

    epochs: int = 15
    full_size_epochs: int = 5
    small_size: int = 112  # pixels
    full_size: int = 224  # pixels
    batch_size: int = 64
    learning_rate: float = 0.05
    full_size_learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    seed: int = 1

    @property
    def small_epochs(self) -> int:
        """Epochs at half size: none where there are no more epochs than full-size ones."""
        return max(0, self.epochs - self.full_size_epochs)


def pretrain_encoder(
    photos: Path,
    out: Path,
    *,
    recipe: PretrainingRecipe | None = None,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
    step: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Train EfficientFace on ``photos`` (see ``mer.data.photos``) and write it to ``out``.

    Writes ``encoder.safetensors`` (moving average of the weights, names as in the published
    EfficientFace checkpoints), ``metrics.csv``, and ``last.pt`` to resume from.

    Args:
        report: called with a row of metrics after each epoch.
        step: called with (batches done, batches in all) after each batch.

    Returns:
        The last epoch's metrics; ``test_prec1`` and ``test_uar`` in percent.

    Raises:
        CorpusError: the photos can't be read.
        TrainingError: ``out`` holds a run and ``resume`` is not set, its state is damaged, or
            the loss isn't finite.
        OutputError: ``out`` can't be written.
    """
    recipe = recipe or PretrainingRecipe()
    if (out / STATE_FILE).exists() and not resume:
        raise TrainingError(f"{out} already holds a run: resume it with --resume, or name another")
    train, test = load_photos(photos, "train"), load_photos(photos, "test")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(out, str(error)) from error
    torch.manual_seed(recipe.seed)
    net = _Classifier(len(train.labels)).to(device)
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    rows: list[dict[str, float]] = []
    if resume and (out / STATE_FILE).exists():
        state = load_state(out / STATE_FILE, device)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        rows = state["rows"]
    batches = len(train.classes) // recipe.batch_size
    for epoch in range(len(rows), recipe.epochs):
        generator = np.random.default_rng((recipe.seed, epoch))
        small = epoch < recipe.small_epochs
        size = recipe.small_size if small else recipe.full_size
        order = _draw(train, batches * recipe.batch_size, generator)
        losses = []
        net.train()
        for i, rows_of_batch in enumerate(np.split(order, batches)):
            lr = _learning_rate(recipe, epoch + i / batches)
            optimizer.param_groups[0]["lr"] = lr
            pixels = torch.from_numpy(train.pixels[rows_of_batch]).to(device)
            target = torch.from_numpy(train.classes[rows_of_batch]).to(device)
            logits = net(augment(pixels, size, generator))
            loss = functional.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is not finite in epoch {epoch + 1}, batch {i + 1}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            _update_average(average, net, recipe.ema_decay)
            losses.append(loss.item())
            if step:
                step(epoch * batches + i + 1, recipe.epochs * batches)
        _refresh_statistics(average, train, size, recipe.batch_size, generator, device)
        prec1, uar = evaluate_encoder(average, test, size, device)
        row = {
            "epoch": epoch + 1,
            "size": size,
            "lr": lr,
            "train_loss": float(np.mean(losses)),
            "test_prec1": prec1,
            "test_uar": uar,
        }
        rows.append(row)
        _save(out, net, average, optimizer, rows, recipe, train.labels)
        if report:
            report(row)
    return rows[-1]


class _Classifier(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = EfficientFace()
        self.fc = nn.Linear(FEATURES, num_classes)

    def forward(self, crops: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.encoder(crops))
        return logits


def augment(pixels: Tensor, size: int, generator: np.random.Generator) -> Tensor:
    """Grey photos (N, 48, 48) uint8 to varied crops (N, 3, size, size) float in [0, 1].

    Flip, rotation to 15 degrees, scale 0.8 to 1.2, shift to 8 %, brightness, contrast, a
    rectangle blanked, all drawn for each photo; one interpolation does the geometry.
    """
    n = len(pixels)

    def draw(low: float, high: float) -> Tensor:
        values = generator.uniform(low, high, n).astype(np.float32)
        return torch.from_numpy(values).to(pixels.device)

    angle, zoom = draw(-math.pi / 12, math.pi / 12), draw(0.8, 1.2)
    flip = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = torch.stack(
        (cos * flip, -sin, draw(-0.16, 0.16), sin * flip, cos, draw(-0.16, 0.16)), dim=1
    )
    grid = functional.affine_grid(rows.view(n, 2, 3), [n, 1, size, size], align_corners=False)
    grey = pixels[:, None].float().div(255)
    grey = functional.grid_sample(grey, grid, padding_mode="border", align_corners=False)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    grey = (grey - mean) * draw(0.7, 1.3).view(n, 1, 1, 1) + mean
    grey = (grey + draw(-0.15, 0.15).view(n, 1, 1, 1)).clamp(0, 1)
    side = (draw(0.0, 0.4) * size).long()
    top, left = (draw(0, 1) * (size - side)).long(), (draw(0, 1) * (size - side)).long()
    ticks = torch.arange(size, device=pixels.device)
    inside_y = (ticks >= top[:, None]) & (ticks < (top + side)[:, None])
    inside_x = (ticks >= left[:, None]) & (ticks < (left + side)[:, None])
    hole = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    grey = torch.where(hole & (draw(0, 1) < 0.5).view(n, 1, 1, 1), mean, grey)
    return grey.expand(-1, 3, -1, -1)


@torch.inference_mode()
def evaluate_encoder(net: nn.Module, photos: Photos, size: int, device: str) -> tuple[float, float]:
    """prec1 and unweighted average recall, in percent, without augmentation."""
    net.eval()
    answers = []
    for pixels in torch.from_numpy(photos.pixels).split(128):
        grey = pixels[:, None].float().div(255).to(device)
        crops = functional.interpolate(grey, size=(size, size), mode="bilinear")
        answers.append(net(crops.expand(-1, 3, -1, -1)).argmax(dim=1).cpu())
    right = torch.cat(answers).numpy() == photos.classes
    recalls = [right[photos.classes == c].mean() for c in range(len(photos.labels))]
    return 100 * float(right.mean()), 100 * float(np.mean(recalls))


def _draw(photos: Photos, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows of one epoch; rare classes are drawn more often, by the square root of their share."""
    counts = np.bincount(photos.classes, minlength=len(photos.labels))
    weights = 1 / np.sqrt(counts[photos.classes])
    return generator.choice(len(photos.classes), n, p=weights / weights.sum())


def _learning_rate(recipe: PretrainingRecipe, epoch: float) -> float:
    """In each phase a linear warm-up over the first 5 %, then a cosine to zero."""
    small = recipe.small_epochs
    if epoch < small:
        peak, progress = recipe.learning_rate, epoch / small
    else:
        peak = recipe.full_size_learning_rate
        progress = (epoch - small) / (recipe.epochs - small)
    warm = min(1.0, 0.1 + progress / 0.05)
    return peak * warm * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def _update_average(average: nn.Module, net: nn.Module, decay: float) -> None:
    for mean, new in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(new, 1 - decay)


@torch.no_grad()
def _refresh_statistics(
    average: nn.Module,
    photos: Photos,
    size: int,
    batch_size: int,
    generator: np.random.Generator,
    device: str,
) -> None:
    """Give the averaged weights batch statistics of their own: those of the net lag behind."""
    for module in average.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
    average.train()
    for _ in range(STATISTICS_BATCHES):
        rows = _draw(photos, batch_size, generator)
        average(augment(torch.from_numpy(photos.pixels[rows]).to(device), size, generator))
    average.eval()


def _save(
    out: Path,
    net: nn.Module,
    average: _Classifier,
    optimizer: torch.optim.Optimizer,
    rows: list[dict[str, float]],
    recipe: PretrainingRecipe,
    labels: tuple[str, ...],
) -> None:
    state = {
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rows": rows,
    }
    note = {"recipe": asdict(recipe), "labels": labels, "metrics": rows[-1]}
    table = io.StringIO()
    writer = csv.DictWriter(table, METRICS_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    weights = {name: value.contiguous() for name, value in average.encoder.state_dict().items()}
    data = io.BytesIO()
    torch.save(state, data)
    write_file(out / ENCODER_FILE, save(weights, {"mer_edge_encoder": json.dumps(note)}))
    write_file(out / METRICS_FILE, table.getvalue().encode())
    # Last: a run that is cut off before this does the epoch again.
    write_file(out / STATE_FILE, data.getvalue())
