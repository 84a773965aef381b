"""One recipe with several seeds and folds: a run for each, and what they have in common."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mer.data.cache import Cache
from mer.errors import TrainingError
from mer.models import add_model, own_hash, own_source
from mer.train.runs import Row, require_no_run
from mer.train.training import TrainingSummary, train_model
from mer_runtime.cluster import work_on_cluster
from mer_runtime.files import is_there, write_file

SEEDS_FILE, FOLDS_FILE = "seeds.csv", "folds.csv"
#: What is told of each run: its best epoch's metrics.
TOLD = ("epoch", "validation_loss", "validation_prec1", "validation_prec5")
#: What of a recipe may be a file, or the name of a checkpoint that ships.
FILES = ("encoder", "start", "teacher")


class Draw(NamedTuple):
    """What one run of a series has for itself: its seed, and its fold (None: the default split)."""

    seed: int
    fold: int | None = None


@dataclass(frozen=True)
class Series:
    """Runs that differ in their seed or fold alone.

    Attributes:
        runs: by seed and fold.
        mean, deviation: of the best epochs' metrics; the deviation is the sample's (n - 1).
        between: where there are several seeds and several folds, the deviations of the seeds'
            means and of the folds' means, as ``seeds`` and ``folds``.
        table: where they lie as CSV, a row a run.
    """

    runs: dict[Draw, TrainingSummary]
    mean: Row
    deviation: Row
    between: dict[str, Row]
    table: Path


def train_series(
    cache: str | Path,
    out: str | Path,
    *,
    seeds: Sequence[int] = (1,),
    folds: Sequence[int] = (),
    ray: str | None = None,
    threads: int = 1,
    report: Callable[[Draw, Row], None] | None = None,
    **recipe: Any,
) -> Series:
    """Train once with each seed on each fold, and write a table of the runs after each.

    Runs lie in ``out/seed-N``, ``out/fold-K``, or ``out/fold-K/seed-N`` where there are several of
    both; the table is ``out/folds.csv``, or ``out/seeds.csv`` where there is one fold at most.
    With ``resume`` runs that are finished stay as they are, and the others go on or begin.

    Args:
        folds: of cross-validation, 1 to 5; the default split without.
        ray: address of a Ray cluster that has the runs, as ``mer_runtime.cluster`` takes it; by
            default they are here, one after the other. Its machines need mer-edge with the extras
            ``train`` and ``ray``, and must find the cache, ``out`` and the recipe's files under
            the same paths as this one. A run whose worker dies goes on in another.
        threads: CPUs of each run on a cluster; with ``device="cuda"`` it has a GPU, too.
        report: called with the run's seed and fold, and a row of metrics, after each epoch; on a
            cluster, after each run, with its best epoch's.
        recipe: as for ``mer.train_model``; on a cluster ``progress`` is called with
            ("training", runs done, runs in all).

    Raises:
        CacheError, CorpusError: the cache can't be read, or a fold has no clips in it.
        TrainingError: there are fewer than two runs, or one stands twice; a cluster's workers
            can't get at a network of one's own, as it isn't in a file; else as
            ``mer.train_model``. On a cluster, the other runs are finished first.
        MissingExtraError: Ray isn't installed.
        MerError: the cluster can't be reached or has no room.
    """
    draws = [Draw(seed, fold) for fold in folds or (None,) for seed in seeds]
    if len(draws) < 2 or len(set(draws)) < len(draws):
        given = f"seeds {list(seeds)}" + (f", folds {list(folds)}" if folds else "")
        raise TrainingError(f"{given}: give two or more that differ")
    folder = Path(out)
    places = {draw: folder / _name(draw, seeds, folds) for draw in draws}
    data = Cache.open(cache)
    for fold, split in itertools.product(folds, ("train", "validation")):
        data.select(split, fold)  # before hours go into the folds in front of it
    table = folder / (FOLDS_FILE if len(folds) > 1 else SEEDS_FILE)
    train = _train_here if ray is None else partial(_train_on_cluster, ray, threads)
    runs: dict[Draw, TrainingSummary] = {}
    for draw, run in train(cache, places, report, recipe):
        runs[draw] = run
        write_file(table, _format(runs))
    between = {}
    if len(seeds) > 1 and len(folds) > 1:
        between = {"seeds": _spread(runs, "seed"), "folds": _spread(runs, "fold")}
    best = [run.best for run in runs.values()]
    return Series(runs, _over(best, statistics.mean), _over(best, statistics.stdev), between, table)


def _over(rows: Sequence[Row], statistic: Callable[[list[float]], float]) -> Row:
    """A statistic of each validation figure."""
    names = [name for name in rows[0] if name.startswith("validation_")]
    return {name: statistic([row[name] for row in rows]) for name in names}


def _spread(runs: Mapping[Draw, TrainingSummary], kind: str) -> Row:
    """The deviation of the means of runs with the same seed, or fold."""
    groups: dict[int | None, list[Row]] = {}
    for draw, run in runs.items():
        groups.setdefault(getattr(draw, kind), []).append(run.best)
    means = [_over(rows, statistics.mean) for rows in groups.values()]
    return _over(means, statistics.stdev)


def _name(draw: Draw, seeds: Sequence[int], folds: Sequence[int]) -> Path:
    """The run's folder in the series'."""
    parts = [f"fold-{draw.fold}"] if len(folds) > 1 else []
    return Path(*parts, *([f"seed-{draw.seed}"] if len(seeds) > 1 else []))


def _train_here(
    cache: str | Path,
    places: Mapping[Draw, Path],
    report: Callable[[Draw, Row], None] | None,
    recipe: Mapping[str, Any],
) -> Iterator[tuple[Draw, TrainingSummary]]:
    for draw, place in places.items():
        told = partial(report, draw) if report else None
        yield draw, train_model(cache, place, report=told, **draw._asdict(), **recipe)


def _train_on_cluster(
    address: str,
    threads: int,
    cache: str | Path,
    places: Mapping[Draw, Path],
    report: Callable[[Draw, Row], None] | None,
    recipe: Mapping[str, Any],
) -> Iterator[tuple[Draw, TrainingSummary]]:
    given = {**recipe}
    progress = given.pop("progress", None) or (lambda stage, done, total: None)
    if not given.pop("resume", False):
        for place in places.values():
            require_no_run(place)
    # A worker has another working folder; and it goes on with the run of one that died.
    given |= {name: _find(given[name]) for name in FILES if given.get(name) is not None}
    work = partial(_train, str(Path(cache).absolute()), {**given, "resume": True})
    load = partial(_set_up, threads, _list_own_networks(given))
    gpus = int(given.get("device") == "cuda")
    failed = []
    items = [(draw, place.absolute()) for draw, place in places.items()]
    done = work_on_cluster(items, address, load, work, cpus=threads, gpus=gpus)
    for number, ((draw, _), run, error) in enumerate(done, start=1):
        progress("training", number, len(places))
        if error is not None:
            failed.append(error)
            continue
        if report:
            report(draw, run.best)
        yield draw, replace(run, checkpoint=places[draw] / run.checkpoint.name)
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
    cache: str, recipe: Mapping[str, Any], loaded: None, item: tuple[Draw, Path]
) -> TrainingSummary:
    """In a worker."""
    draw, place = item
    return train_model(cache, place, **draw._asdict(), **recipe)


def _format(runs: Mapping[Draw, TrainingSummary]) -> str:
    """The table; without the column fold where there is none."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    kinds = ["fold", "seed"] if any(draw.fold for draw in runs) else ["seed"]
    writer.writerow((*kinds, *TOLD, "temperature", "ece"))
    for draw, run in runs.items():
        confidence = next(iter(run.confidence.values()))
        figures = [*(run.best[name] for name in TOLD), confidence.temperature, confidence.ece]
        writer.writerow((*(getattr(draw, kind) for kind in kinds), *figures))
    return table.getvalue()
