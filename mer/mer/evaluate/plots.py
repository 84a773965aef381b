"""Accuracy against time, as a picture (matplotlib, imported when drawing)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mer_runtime.errors import MissingExtraError, OutputError
from mer_runtime.files import write_file

SUFFIXES = (".png", ".svg")
#: Inches, and dots to one of them.
SIZE, DPI = (6.4, 4.2), 150


@dataclass(frozen=True)
class Point:
    """One model: prec1 in percent and milliseconds, each with its 95 % interval."""

    name: str
    prec1: float
    prec1_interval: tuple[float, float]
    milliseconds: float
    milliseconds_interval: tuple[float, float]


def check_plot(path: Path) -> None:
    """See that a picture can be drawn into a file.

    Raises:
        OutputError: its name ends otherwise than a picture's.
        MissingExtraError: matplotlib isn't installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(path, f"a plot's file ends with {' or '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "drawing a picture") from error


def plot_front(points: Sequence[Point], path: Path) -> None:
    """Draw prec1 against time, a point for each model, with intervals both ways.

    Raises:
        OutputError, MissingExtraError: as ``check_plot``, or ``path`` can't be written.
    """
    check_plot(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    kind = path.suffix.lower()[1:]
    # Text as text, and no random ids: the same points give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mer-edge"}):
        figure = Figure(SIZE, dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        for i, one in enumerate(points):
            (low, high), (fast, slow) = one.prec1_interval, one.milliseconds_interval
            axes.errorbar(
                [one.milliseconds],
                [one.prec1],
                xerr=[[max(0, one.milliseconds - fast)], [max(0, slow - one.milliseconds)]],
                yerr=[[max(0, one.prec1 - low)], [max(0, high - one.prec1)]],
                fmt="os^Dv"[i % 5],
                color=f"C{i % 10}",
                capsize=3,
                elinewidth=1,
                label=one.name,
            )
        axes.set(xlabel="time for a window (ms)", ylabel="prec1 (%)")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        data = io.BytesIO()
        figure.savefig(data, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_file(path, data.getvalue())
