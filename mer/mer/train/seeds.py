"""One recipe with several seeds: a run for each, and what they have in common."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mer.errors import TrainingError
from mer.models import add_model, own_hash, own_source
from mer.train.runs import Row, require_no_run
from mer.train.training import TrainingSummary, train_model
from mer_runtime.cluster import work_on_cluster
from mer_runtime.files import is_there, write_file

SEEDS_FILE = "seeds.csv"
#: What is told of each run: its best epoch's metrics.
TOLD = ("epoch", "validation_loss", "validation_prec1", "validation_prec5")
#: What of a recipe may be a file, or the name of a checkpoint that ships.
FILES = ("encoder", "start", "teacher")


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
    ray: str | None = None,
    threads: int = 1,
    report: Callable[[int, Row], None] | None = None,
    **recipe: Any,
) -> SeedsSummary:
    """Train once with each seed, into ``out/seed-N``; write ``out/seeds.csv`` after each.

    With ``resume`` runs that are finished stay as they are, and the others go on or begin.

    Args:
        ray: address of a Ray cluster that has the runs, as ``mer_runtime.cluster`` takes it; by
            default they are here, one after the other. Its machines need mer-edge with the extras
            ``train`` and ``ray``, and must find the cache, ``out`` and the recipe's files under
            the same paths as this one. A run whose worker dies goes on in another.
        threads: CPUs of each run on a cluster; with ``device="cuda"`` it has a GPU, too.
        report: called with the seed and a row of metrics after each epoch; on a cluster, after
            each run, with its best epoch's.
        recipe: as for ``mer.train_model``; on a cluster ``progress`` is called with
            ("training", runs done, runs in all).

    Raises:
        TrainingError: there are fewer than two seeds, or one stands twice; a cluster's workers
            can't get at a network of one's own, as it isn't in a file; else as
            ``mer.train_model``. On a cluster, the other runs are finished first.
        MissingExtraError: Ray isn't installed.
        MerError: the cluster can't be reached or has no room.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise TrainingError(f"seeds {list(seeds)}: give two or more that differ")
    folder = Path(out)
    train = _train_here if ray is None else partial(_train_on_cluster, ray, threads)
    runs: dict[int, TrainingSummary] = {}
    for seed, run in train(cache, folder, seeds, report, recipe):
        runs[seed] = run
        write_file(folder / SEEDS_FILE, _format(runs))
    best = [run.best for run in runs.values()]
    names = [name for name in best[0] if name.startswith("validation_")]
    return SeedsSummary(
        runs,
        {name: statistics.mean(row[name] for row in best) for name in names},
        {name: statistics.stdev(row[name] for row in best) for name in names},
        folder / SEEDS_FILE,
    )


def run_folder(out: Path, seed: int) -> Path:
    """Where a seed's run lies."""
    return out / f"seed-{seed}"


def _train_here(
    cache: str | Path,
    out: Path,
    seeds: Sequence[int],
    report: Callable[[int, Row], None] | None,
    recipe: Mapping[str, Any],
) -> Iterator[tuple[int, TrainingSummary]]:
    for seed in seeds:
        told = partial(report, seed) if report else None
        yield seed, train_model(cache, run_folder(out, seed), seed=seed, report=told, **recipe)


def _train_on_cluster(
    address: str,
    threads: int,
    cache: str | Path,
    out: Path,
    seeds: Sequence[int],
    report: Callable[[int, Row], None] | None,
    recipe: Mapping[str, Any],
) -> Iterator[tuple[int, TrainingSummary]]:
    given = {**recipe}
    progress = given.pop("progress", None) or (lambda stage, done, total: None)
    if not given.pop("resume", False):
        for seed in seeds:
            require_no_run(run_folder(out, seed))
    # A worker has another working folder; and it goes on with the run of one that died.
    given |= {name: _find(given[name]) for name in FILES if given.get(name) is not None}
    work = partial(_train, str(Path(cache).absolute()), out.absolute(), {**given, "resume": True})
    load = partial(_set_up, threads, _list_own_networks(given))
    gpus = int(given.get("device") == "cuda")
    failed = []
    done = work_on_cluster(list(seeds), address, load, work, cpus=threads, gpus=gpus)
    for number, (seed, run, error) in enumerate(done, start=1):
        progress("training", number, len(seeds))
        if error is not None:
            failed.append(error)
            continue
        if report:
            report(seed, run.best)
        yield seed, replace(run, checkpoint=run_folder(out, seed) / run.checkpoint.name)
    if failed:
        raise failed[0]


def _list_own_networks(recipe: Mapping[str, Any]) -> list[str]:
    """``FILE.py:CLASS`` of the networks that a worker has to add."""
    names = [name for kind in ("fusion", "face_encoder") if own_hash(name := recipe.get(kind, ""))]
    sources = {name: own_source(name) for name in names}
    for name, source in sources.items():
        if source is None:
            raise TrainingError(
                f"{name} can't be had on a cluster: write it in a file, and add that by "
                "mer.add_model('FILE.py:CLASS')"
            )
    return [source for source in sources.values() if source]


def _find(file: str | Path) -> str | Path:
    return Path(file).absolute() if is_there(Path(file)) else file


def _set_up(threads: int, networks: Sequence[str]) -> None:
    """In a worker, once."""
    torch.set_num_threads(threads)
    for network in networks:
        add_model(network)


def _train(
    cache: str, out: Path, recipe: Mapping[str, Any], loaded: None, seed: int
) -> TrainingSummary:
    """In a worker."""
    return train_model(cache, run_folder(out, seed), seed=seed, **recipe)


def _format(runs: dict[int, TrainingSummary]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("seed", *TOLD, "temperature", "ece"))
    for seed, run in runs.items():
        confidence = next(iter(run.confidence.values()))
        figures = [*(run.best[name] for name in TOLD), confidence.temperature, confidence.ece]
        writer.writerow((seed, *figures))
    return table.getvalue()
