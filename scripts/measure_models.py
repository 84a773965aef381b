"""Measure the runs of ``train_table.py`` and what ships on the test actors, and write the tables.

    python scripts/measure_models.py runs/table cache/ravdess cache/small

writes docs/models.json, the runs' logs and curves under docs/training, and the tables of
docs/explanation/accuracy-models.md. A checkpoint that was measured before isn't measured again; a
run that isn't there any more keeps its rows. ``cache/small`` has the crops of ``ia-compact``.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import torch

from make_tables import ROOT, write_all_tables
from mer.checkpoint import load_checkpoint
from mer.data.cache import Cache
from mer.errors import CacheError, TrainingError
from mer.evaluate.evaluation import evaluate_model
from mer.train.plots import plot_runs
from mer.train.runs import BEST_FILE, METRICS_FILE
from mer.weights import SHIPPED, shipped_checkpoint
from mer_runtime.console import Command, progress
from mer_runtime.feeds import Modality
from mer_runtime.files import hash_file, write_file
from mer_runtime.spec import Spec
from train_table import TableRun, is_finished, list_runs

#: What a model of both modalities is fed, by the names of the tables: options of mer-eval.
FEEDS: dict[str, dict[str, Any]] = {
    "both": {},
    "voice": {"face": "missing"},
    "face": {"voice": "missing"},
    "voice-face-noise": {"face": "noise"},
    "face-voice-noise": {"voice": "noise"},
}
SINGLE: dict[Modality, str] = {"audio": "voice", "video": "face"}
#: Pictures of curves, and which runs are in them.
PICTURES: dict[str, tuple[str, ...]] = {
    "balanced": ("balanced-",),
    "tuned": ("tuned-",),
    "paper": ("paper-",),
    "single-modality": ("voice-only", "face-only"),
    "folds": ("fold-",),
    "ablation": ("ablation-", "paper-ia"),
}


def choose_feeds(run: TableRun) -> list[str]:
    """What a run is measured with: everything only where the tables show it."""
    if run.modality != "both":
        return [SINGLE[run.modality]]
    return list(FEEDS) if run.name.startswith(("balanced-", "tuned-", "paper-")) else ["both"]


def measure_checkpoint(
    path: Path, caches: Sequence[Path], feeds: Iterable[str], fold: int | None
) -> dict[str, Any]:
    """A checkpoint's settings and its scores on the test actors, by feed."""
    checkpoint = load_checkpoint(path)
    notes, cache = checkpoint.notes, choose_cache(caches, checkpoint.spec)
    protocol = notes["protocol"]
    scores = {}
    for feed in feeds:
        found = evaluate_model(path, cache, fold=fold, **FEEDS[feed]).to_dict()
        scores[feed] = {name: found[name] for name in found if name not in ("model", "corpus")}
    return {
        "fusion": notes["fusion"],
        "protocol": protocol["name"],
        "fold": fold,
        "epochs": protocol["epochs"],
        "learning_rate": protocol["learning_rate"],
        "weight_decay": protocol["weight_decay"],
        "seed": notes["seed"],
        "freeze": notes["freeze"],
        "encoder": notes["encoder"],
        "best": notes["metrics"],
        "checkpoint": hash_file(path),
        "scores": scores,
    }


def choose_cache(caches: Sequence[Path], spec: Spec) -> Path:
    """The cache whose crops have the size of ``spec``, else the first that suits it.

    Raises:
        CacheError: none does.
    """
    opened = {cache: Cache.open(cache) for cache in caches}
    *others, last = sorted(caches, key=lambda one: opened[one].spec.video.size != spec.video.size)
    for cache in others:
        with suppress(CacheError):
            opened[cache].require(spec)
            return cache
    opened[last].require(spec)
    return last


def read_curves(path: Path) -> list[dict[str, float]]:
    """A run's ``metrics.csv``."""
    with path.open(newline="") as file:
        return [{name: float(v) for name, v in row.items() if v} for row in csv.DictReader(file)]


def draw_pictures(folder: Path, names: Sequence[str]) -> None:
    """Curves of the runs whose logs are in ``folder``, one picture a group."""
    for picture, starts in PICTURES.items():
        curves = {
            name: read_curves(folder / f"{name}.csv") for name in names if name.startswith(starts)
        }
        if curves:
            plot_runs(curves, folder / f"{picture}.png")


@click.command(cls=Command)
@click.argument("runs", type=click.Path(path_type=Path))
@click.argument("caches", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--root", type=click.Path(path_type=Path), default=ROOT, hidden=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def main(runs: Path, caches: tuple[Path, ...], root: Path, threads: int) -> None:
    """Measure the finished RUNS and the shipped checkpoints on CACHES (see mer-prepare)."""
    torch.set_num_threads(threads)
    docs = root / "docs"
    (digest,) = {Cache.open(cache).digest for cache in caches}  # of one corpus
    before = read_models(docs / "models.json", digest)
    finished = [run for run in list_runs() if is_finished(runs / run.name, None)]
    wanted = [
        (run.name, runs / run.name / BEST_FILE, choose_feeds(run), run.fold) for run in finished
    ]
    wanted += [(fusion, shipped_checkpoint(fusion), list(FEEDS), None) for fusion in SHIPPED]
    encoders = set()
    rows = []
    with progress(wanted, label="Measuring") as bar:
        for name, path, feeds, fold in bar:
            row = before.get(name)
            if row is None or row["checkpoint"] != hash_file(path) or list(row["scores"]) != feeds:
                row = measure_checkpoint(path, caches, feeds, fold)
            rows.append({"name": name, **row})
            if name not in SHIPPED:
                encoders.add(row["encoder"])
    if len(encoders) > 1:
        raise TrainingError(f"the runs in {runs} have {len(encoders)} encoders: train them again")
    measured = {row["name"] for row in rows}
    rows = [row for name, row in before.items() if name not in measured] + rows
    described = {"corpus": digest, "rows": rows}
    (docs / "training").mkdir(parents=True, exist_ok=True)
    write_file(docs / "models.json", (json.dumps(described, indent=1) + "\n").encode())
    for run in finished:
        shutil.copyfile(runs / run.name / METRICS_FILE, docs / "training" / f"{run.name}.csv")
    draw_pictures(docs / "training", [run.name for run in finished])
    write_all_tables(root)
    known = {row["name"] for row in rows}
    missing = [run.name for run in list_runs() if run.name not in known]
    if missing:
        click.echo(f"not finished, so not in the tables: {', '.join(missing)}")


def read_models(path: Path, digest: str) -> Mapping[str, dict[str, Any]]:
    """Rows by name that were measured on the same corpus before."""
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text("utf-8"))
    return {row["name"]: row for row in kept["rows"]} if kept["corpus"] == digest else {}


if __name__ == "__main__":
    main()
