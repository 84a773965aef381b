"""One recipe with several seeds: a run for each, and what they have in common."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer.errors import TrainingError
from mer.train.runs import Row
from mer.train.training import TrainingSummary, train_model
from mer_runtime.files import write_file

SEEDS_FILE = "seeds.csv"
#: What is told of each run: its best epoch's metrics.
TOLD = ("epoch", "validation_loss", "validation_prec1", "validation_prec5")


@dataclass(frozen=True)
class SeedsSummary:
    """Runs that differ in their seed alone.

    Attributes:
        runs: by seed.
        mean, deviation: of the best epochs' metrics; the deviation is the sample's (n - 1).
        table: where they lie as CSV, a row a seed.
    """

    runs: dict[int, TrainingSummary]
    mean: Row
    deviation: Row
    table: Path


def train_seeds(
    cache: str | Path,
    out: str | Path,
    seeds: Sequence[int],
    *,
    report: Callable[[int, Row], None] | None = None,
    **recipe: Any,
) -> SeedsSummary:
    """Train once with each seed, into ``out/seed-N``; write ``out/seeds.csv`` after each.

    With ``resume`` runs that are finished stay as they are, and the others go on or begin.

    Args:
        report: called with the seed and a row of metrics after each epoch.
        recipe: as for ``mer.train_model``.

    Raises:
        TrainingError: there are fewer than two seeds, or one stands twice; else as
            ``mer.train_model``.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise TrainingError(f"seeds {list(seeds)}: give two or more that differ")
    folder = Path(out)
    runs: dict[int, TrainingSummary] = {}
    for seed in seeds:
        told = (lambda row, seed=seed: report(seed, row)) if report else None
        runs[seed] = train_model(cache, folder / f"seed-{seed}", seed=seed, report=told, **recipe)
        write_file(folder / SEEDS_FILE, _format(runs))
    best = [run.best for run in runs.values()]
    names = [name for name in best[0] if name.startswith("validation_")]
    return SeedsSummary(
        runs,
        {name: statistics.mean(row[name] for row in best) for name in names},
        {name: statistics.stdev(row[name] for row in best) for name in names},
        folder / SEEDS_FILE,
    )


def _format(runs: dict[int, TrainingSummary]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("seed", *TOLD, "temperature", "ece"))
    for seed, run in runs.items():
        confidence = next(iter(run.confidence.values()))
        figures = [*(run.best[name] for name in TOLD), confidence.temperature, confidence.ece]
        writer.writerow((seed, *figures))
    return table.getvalue()
