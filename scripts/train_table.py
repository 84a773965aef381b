"""Train every run that the tables of docs/explanation/accuracy-models.md are made from.

Three fusions by the paper's protocol and by our two, single-modality models, five folds, and the
ablation of the paper's section 6.2: all with a frozen encoder, whose frame features are computed
once. A run that is finished is passed over, one that was stopped goes on:

    python scripts/train_table.py cache/ravdess --out runs/table --encoder encoder.safetensors

``scripts/measure_models.py`` then measures them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import torch

from mer.cli.stages import StageBars
from mer.data.splits import FOLDS
from mer.errors import TrainingError
from mer.protocols import ProtocolName
from mer.train.runs import SETTINGS_FILE
from mer.train.training import train_model
from mer.weights import PAPER
from mer_runtime.console import Command, warn
from mer_runtime.feeds import Modality
from mer_runtime.spec import Fusion

#: Paper, section 6.2. Its choice, 0.04 and 1e-3, is the run ``paper-ia``.
LEARNING_RATES = (0.01, 0.04, 0.1)
WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class TableRun:
    """One training, by the name of its folder; None leaves the protocol's value."""

    name: str
    fusion: Fusion = "ia"
    protocol: ProtocolName = "balanced"
    modality: Modality = "both"
    fold: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None


def list_runs() -> list[TableRun]:
    """All runs of the tables, those that most depends on first."""
    fusions: list[TableRun] = []
    protocols: tuple[ProtocolName, ...] = ("balanced", "tuned", "paper")
    for protocol in protocols:
        fusions += [TableRun(f"{protocol}-{fusion}", fusion, protocol) for fusion in PAPER]
    single = [TableRun("voice-only", modality="audio"), TableRun("face-only", modality="video")]
    folds = [TableRun(f"fold-{fold}", fold=fold) for fold in range(1, FOLDS + 1)]
    return [*fusions, *single, *folds, *_list_ablation()]


def _list_ablation() -> Iterator[TableRun]:
    for rate in LEARNING_RATES:
        for decay in WEIGHT_DECAYS:
            if (rate, decay) != (0.04, 1e-3):
                name = f"ablation-lr{rate:g}-wd{decay:g}"
                yield TableRun(name, protocol="paper", learning_rate=rate, weight_decay=decay)


def is_finished(folder: Path, epochs: int | None) -> bool:
    """Whether a run's log has results, and of as many epochs as are asked for."""
    try:
        log: dict[str, Any] = json.loads((folder / SETTINGS_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return False
    trained = log["settings"]["protocol"]["epochs"]
    return "results" in log and (epochs is None or trained >= epochs)


def choose_runs(runs: Sequence[TableRun], patterns: Sequence[str]) -> list[TableRun]:
    """Those whose names match a pattern, or all.

    Raises:
        TrainingError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatch(run.name, pattern) for run in runs):
            names = ", ".join(run.name for run in runs)
            raise TrainingError(f"no run is called {pattern}: they are {names}")
    return [run for run in runs if not patterns or any(fnmatch(run.name, p) for p in patterns)]


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="RUNS")
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights of the face encoder (mer-pretrain).  [default: the shipped one]",
)
@click.option(
    "--only",
    "patterns",
    multiple=True,
    metavar="NAME",
    help="A run, or several by a pattern such as 'fold-*'; may be given more than once.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="In place of the protocols'.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--list", "listing", is_flag=True, help="Say which runs are finished, and stop.")
def main(
    cache: Path,
    out: Path,
    encoder: Path | None,
    patterns: tuple[str, ...],
    epochs: int | None,
    seed: int,
    threads: int,
    listing: bool,
) -> None:
    """Train on CACHE (see mer-prepare) what isn't finished yet, each run in a folder of RUNS.

    A run that fails, by a loss that isn't finite, say, is reported and the rest go on; the exit
    code is then 1. Two of these commands may share RUNS if --only keeps them apart.

    \b
    Example:
        python scripts/train_table.py cache/ravdess --out runs/table --only 'balanced-*'
    """
    torch.set_num_threads(threads)
    failed = False
    for run in choose_runs(list_runs(), patterns):
        done = is_finished(out / run.name, epochs)
        if done or listing:
            click.echo(f"{run.name}: {'finished' if done else 'to do'}")
            continue
        try:
            click.echo(train_run(run, cache, out / run.name, encoder, epochs, seed))
        except TrainingError as error:
            failed = True
            warn(f"{run.name}: {error}")
    if failed:
        raise click.exceptions.Exit(1)


def train_run(
    run: TableRun, cache: Path, out: Path, encoder: Path | None, epochs: int | None, seed: int
) -> str:
    """Train one run, or go on with it, and say how it went in a line."""
    started = time.monotonic()
    with StageBars({"features": f"{run.name}: faces", "training": run.name}) as bars:
        summary = train_model(
            cache,
            out,
            fusion=run.fusion,
            protocol=run.protocol,
            modality=run.modality,
            encoder=encoder,
            freeze="encoder",
            epochs=epochs,
            learning_rate=run.learning_rate,
            weight_decay=run.weight_decay,
            seed=seed,
            fold=run.fold,
            resume=True,
            progress=bars.show,
        )
    best = summary.best
    return (
        f"{run.name}: best of {summary.epochs} epochs is {best['epoch']}, "
        f"validation prec1 {best['validation_prec1']:.2f} %, loss {best['validation_loss']:.3f} "
        f"({time.monotonic() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
