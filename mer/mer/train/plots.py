"""Pictures of a run's curves and of a confusion matrix (matplotlib, imported when drawing)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MissingExtraError
from mer_runtime.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Dots per inch; sizes below are in inches.
DPI = 110


def plot_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and prec1 by epoch, training and validation, as a PNG file.

    Args:
        rows: metrics by epoch, as in a run's ``metrics.csv``; one that is missing isn't drawn.

    Raises:
        OutputError: ``path`` can't be written.
        MissingExtraError: matplotlib isn't installed.
    """
    figure = _figure((9, 3.6))
    epochs = [row["epoch"] for row in rows]
    for place, (metric, unit) in enumerate((("loss", "nats"), ("prec1", "%")), start=1):
        axes = figure.add_subplot(1, 2, place)
        for part in ("train", "validation"):
            values = [row.get(f"{part}_{metric}", math.nan) for row in rows]
            axes.plot(epochs, values, label=part, marker="." if len(rows) < 3 else None)
        axes.set(xlabel="epoch", ylabel=f"{metric} ({unit})")
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def plot_runs(runs: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Validation loss and prec1 of several runs by epoch, a line each, as a PNG file.

    Args:
        runs: metrics by epoch, as in ``metrics.csv``, by the name of the run.

    Raises:
        OutputError: ``path`` can't be written.
        MissingExtraError: matplotlib isn't installed.
    """
    figure = _figure((9, 3.6))
    for place, (metric, unit) in enumerate((("loss", "nats"), ("prec1", "%")), start=1):
        axes = figure.add_subplot(1, 2, place)
        for name, rows in runs.items():
            values = [row[f"validation_{metric}"] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, label=name, linewidth=1)
        axes.set(xlabel="epoch", ylabel=f"validation {metric} ({unit})")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    _save(figure, path)


def plot_confusion(confusion: NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """A confusion matrix (classes, classes), true class by row, as a PNG file.

    Colours show the share of the row, numbers the clips.

    Raises:
        OutputError: ``path`` can't be written.
        MissingExtraError: matplotlib isn't installed.
    """
    side = 2.4 + 0.55 * len(labels)
    figure = _figure((side, side))
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*confusion.shape):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=shade)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=45, ha="right")
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="answer", ylabel="true class")
    _save(figure, path)


def _figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train", "drawing a picture") from error
    # A bare Figure keeps pyplot, its windows and its global state out.
    return Figure(size, dpi=DPI, layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_file(path, data.getvalue())
