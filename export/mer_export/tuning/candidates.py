"""What a search tried, which of it is best, and which fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_export.inspection.layers import align
from mer_runtime.bundle import Precision, Target
from mer_runtime.intervals import Interval


@dataclass(frozen=True)
class Candidate:
    """One bundle that was tried.

    Attributes:
        checkpoint, target, precision: what it is.
        refused: why there is no such bundle, in words; the rest is None then.
        prec1, prec1_interval: percent, on the validation actors, with its 95 % interval.
        drop: points of prec1 less than the best checkpoint has in float.
        latency: milliseconds a window (all crops and the head), median with its 95 % interval.
        size: bytes of the bundle.
        on_front: nothing that was tried is both as fast and as right.
    """

    checkpoint: str
    target: Target
    precision: Precision
    refused: str | None = None
    prec1: float | None = None
    prec1_interval: tuple[float, float] | None = None
    drop: float | None = None
    latency: Interval | None = None
    size: int | None = None
    on_front: bool = False

    @property
    def name(self) -> str:
        """As ``mer-export`` calls a bundle's folder."""
        return f"{Path(self.checkpoint).stem}-{self.target}-{self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "checkpoint": self.checkpoint,
            "target": self.target,
            "precision": self.precision,
            "refused": self.refused,
            "prec1": _round(self.prec1),
            "prec1_interval": self.prec1_interval and [round(x, 4) for x in self.prec1_interval],
            "drop": _round(self.drop),
            "latency": self.latency and self.latency.to_dict(),
            "size": self.size,
            "on_front": self.on_front,
        }


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        candidates: all that were tried, the fastest first, those that were refused last.
        chosen: the one that fits, or None.
        bundle: where it lies.
        clips: how many validation clips prec1 is of.
        threads: that all used.
        max_latency, max_drop: the bounds; None is none.
    """

    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    bundle: Path | None
    clips: int
    threads: int
    max_latency: float | None
    max_drop: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-export --tune --json`` prints."""
        return {
            "candidates": [one.to_dict() for one in self.candidates],
            "chosen": self.chosen and self.chosen.name,
            "bundle": self.bundle and str(self.bundle),
            "clips": self.clips,
            "threads": self.threads,
            "max_latency": self.max_latency,
            "max_drop": self.max_drop,
        }

    def format(self) -> str:
        """A table, and which bundle fits."""
        heads = ("bundle", "front", "ms a window (95 %)", "prec1, % (95 %)", "drop", "MB")
        rows = [heads]
        for one in self.candidates:
            if one.latency is None or one.prec1 is None or one.prec1_interval is None:
                continue
            low, high = one.prec1_interval
            rows.append(
                (
                    one.name,
                    "*" if one.on_front else "",
                    f"{one.latency.median:.1f} ({one.latency.low:.1f} to {one.latency.high:.1f})",
                    f"{one.prec1:.2f} ({low:.1f} to {high:.1f})",
                    f"{one.drop:.2f}",
                    f"{(one.size or 0) / 1e6:.1f}",
                )
            )
        lines = align(rows)
        lines += [f"{one.name} isn't made: {one.refused}" for one in self.candidates if one.refused]
        lines.append(
            f"prec1 on {self.clips} clips of validation actors; drop: points less than the best "
            f"float model; times by turns on {self.threads} threads; *: nothing tried is both as "
            "fast and as right"
        )
        if self.chosen is not None:
            lines.append(f"{self.chosen.name} fits: written to {self.bundle}")
        return "\n".join(lines)

    def tell_nearest(self) -> str:
        """Why nothing fits: what the bundles on the front need."""
        bounds = [f"takes at most {self.max_latency:g} ms"] if self.max_latency is not None else []
        bounds += [f"loses at most {self.max_drop:g} points"] if self.max_drop is not None else []
        front = ", ".join(
            f"{one.name} takes {one.latency.high:.1f} ms and loses {one.drop:.2f}"
            for one in self.candidates
            if one.on_front and one.latency is not None
        )
        return f"no bundle {' and '.join(bounds)} here, so none is written: {front}"


def choose(
    candidates: Sequence[Candidate], max_latency: float | None, max_drop: float | None
) -> Candidate | None:
    """The candidate that fits both bounds; None where none does.

    With a bound on the drop it is the fastest; with one on the latency alone, the most right one,
    and of those that are equally right the fastest.
    """
    fitting = [
        (one, one.latency.median, one.drop)
        for one in candidates
        if one.latency is not None
        and one.drop is not None
        and (max_latency is None or one.latency.high <= max_latency)
        and (max_drop is None or one.drop <= max_drop + 1e-9)
    ]
    if not fitting:
        return None
    if max_drop is not None:
        return min(fitting, key=lambda found: (found[1], found[2]))[0]
    return min(fitting, key=lambda found: (found[2], found[1]))[0]


def mark_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sorted by latency, and those marked that nothing beats."""
    measured = [(one.latency.median, one) for one in candidates if one.latency is not None]
    marked, best = [], -1.0
    for _, one in sorted(measured, key=lambda pair: (pair[0], -(pair[1].prec1 or 0))):
        on_front = (one.prec1 or 0) > best
        best = max(best, one.prec1 or 0)
        marked.append(dataclasses.replace(one, on_front=on_front))
    return marked + [one for one in candidates if one.latency is None]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
