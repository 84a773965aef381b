"""``mer-train``: a cache to a checkpoint."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from mer.cli.options import add_networks, face_encoder, modality, new_networks, run_folder
from mer.cli.runs import (
    describe_run,
    describe_series,
    format_row,
    format_run,
    format_series,
    name_draw,
)
from mer.cli.stages import StageBars
from mer.data.splits import FOLDS
from mer.models import FUSIONS
from mer.protocols import PROTOCOL_NAMES
from mer.train.board import LOGS
from mer.train.runs import Row
from mer.train.series import Draw, train_series
from mer.train.training import train_model
from mer_runtime import options
from mer_runtime.console import Command, say
from mer_runtime.options import Results
from mer_runtime.spec import ENCODER


def _split_numbers(text: str, what: str, most: int) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(part.isdecimal() and int(part) <= most for part in parts):
        raise click.BadParameter(f"{text!r} is no {what}, nor several with commas between.")
    found = tuple(map(int, parts))
    if len(set(found)) < len(found):
        raise click.BadParameter(f"one stands twice in {text!r}.")
    return found


def _split_seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    return _split_numbers(value, "whole number", (1 << 63) - 1)


def _split_folds(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...]:
    if value is None:
        return ()
    if value == "all":
        return tuple(range(1, FOLDS + 1))
    folds = _split_numbers(value, f"fold from 1 to {FOLDS}", FOLDS)
    if 0 in folds:
        raise click.BadParameter(f"{value!r}: the first fold is 1.")
    return folds


@click.command("mer-train", cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--fusion",
    type=click.Choice(list(FUSIONS)),
    help="ia: intermediate attention; it: intermediate transformer; lt: late transformer; "
    "gated: as ia, and the less reliable modality counts less. Required, unless --model is one.",
)
@new_networks("A fusion or a face encoder of one's own, in place of --fusion or --face-encoder.")
@run_folder
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOL_NAMES),
    default="paper",
    show_default=True,
    help="paper: as published; reference-optimiser: the optimiser, schedule and masks of the "
    "public code, on our preprocessing; tuned: for small corpora and a frozen encoder; balanced: "
    "as tuned, each clip with either modality alone too; robust: as balanced, each modality "
    "spoilt as well.",
)
@modality(
    "audio or video trains and validates on that one alone: a single-modality model to compare "
    "with."
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights to start the face encoder from: of mer-pretrain, of a checkpoint (ia: the one "
    "that ships), or of a published EfficientFace.  "
    "[default: random; with --freeze encoder, the one of its kind that ships]",
)
@face_encoder
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Start from all of a checkpoint's weights (fine-tuning); with other classes, from all but "
    "its classifiers; with --encoder, from all but its encoder.",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Learn from what this model makes of the clips, beside the labels (distillation).",
)
@click.option(
    "--freeze",
    type=click.Choice(["encoder", "none"]),
    help="encoder: leave it as it is; its features are computed once and kept in the cache, "
    "which makes an epoch a matter of seconds.  [default: none]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="In place of the protocol's.")
@click.option("--batch-size", type=click.IntRange(min=1), help="In place of the protocol's.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="In place of the protocol's.",
)
@click.option("--weight-decay", type=click.FloatRange(min=0), help="In place of the protocol's.")
@click.option(
    "--seed",
    "seeds",
    default="1",
    show_default=True,
    metavar="N[,N...]",
    callback=_split_seeds,
    help="Draws weights and clips. Several make a run each, in RUN/seed-N, and RUN/seeds.csv; "
    "their mean and deviation are told.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Train several seeds or folds on a Ray cluster (extra ray), at once: auto, HOST:PORT, "
    "ray://HOST:PORT, or local, which starts one here.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="With --ray: CPUs of each run.  [default: 1]",
)
@options.device
@click.option(
    "--fold",
    "folds",
    metavar="K[,K...]|all",
    callback=_split_folds,
    help="Cross-validation fold, 1 to 5. Several make a run each, in RUN/fold-K, and "
    "RUN/folds.csv; with several seeds too, in RUN/fold-K/seed-N.  [default: the default split]",
)
@click.option(
    "--num-heads",
    type=click.Choice(["1", "2", "4", "8", "16", "32", "64"]),
    default="1",
    show_default=True,
    callback=lambda context, parameter, value: int(value),
    help="Attention heads.",
)
@click.option(
    "--size",
    type=click.IntRange(min=16),
    help="Pixels of the face crops, at most the cache's.  [default: the cache's]",
)
@click.option("--n-mfcc", type=click.IntRange(1, 128), help="Number of MFCCs.  [default: 10]")
@click.option("--n-fft", type=click.IntRange(min=64), help="Samples of an MFCC's window.")
@click.option("--hop-length", type=click.IntRange(min=1), help="Samples from one MFCC to the next.")
@click.option("--n-mels", type=click.IntRange(min=1), help="Mel bands under the MFCCs.")
@click.option(
    "--bf16",
    is_flag=True,
    help="Compute training steps in bfloat16: faster on a GPU or a CPU with AMX or AVX512-BF16, "
    "slower elsewhere.",
)
@click.option(
    "--log",
    type=click.Choice(LOGS),
    help="Write the metrics for TensorBoard too, which needs its package; metrics.csv is always "
    "written.",
)
@options.resume
@options.results
@options.common
def main(
    cache: Path,
    out: Path,
    fusion: str | None,
    face_encoder: str | None,
    models: tuple[str, ...],
    seeds: tuple[int, ...],
    folds: tuple[int, ...],
    ray: str | None,
    threads: int | None,
    results: Results,
    **recipe: Any,
) -> None:
    """Train on CACHE (see mer-prepare): training actors teach, validation actors judge.

    Writes into RUN: best.safetensors (the epoch with the highest validation prec1),
    metrics.csv, curves.png (loss and prec1), run.json (every setting) and last.pt (for
    --resume). Stopped by Ctrl-C, the same command with --resume goes on where it was.

    \b
    Example:
      mer-train cache/ravdess --fusion ia --out runs/ia \\
          --encoder runs/encoder/encoder.safetensors --freeze encoder
      mer-eval runs/ia/best.safetensors cache/ravdess
      mer-train cache/mine --fusion ia --from ia --freeze encoder --seed 1,2,3 --out runs/mine
      mer-train cache/mine --fusion ia --fold all --seed 1,2 --ray auto --out runs/ten
      mer-train cache/mine --model my_fusion.py:MyFusion --out runs/my-fusion
    """
    several = len(seeds) > 1 or len(folds) > 1
    if ray is not None and not several:
        raise click.UsageError("--ray is for several runs: give --seed 1,2,3 or --fold all")
    if threads is not None and ray is None:
        raise click.UsageError("--threads goes with --ray")
    named = {"fusion": fusion, "face_encoder": face_encoder}
    chosen = add_networks(models, named, taught=recipe["teacher"] is not None)
    if chosen["fusion"] is None:
        raise click.UsageError("Missing option '--fusion', or a --model that is a fusion.")
    chosen["face_encoder"] = chosen["face_encoder"] or ENCODER
    started = time.monotonic()
    labels = {"features": "Encoding faces", "training": "Training"}
    with StageBars(labels) as bars:

        def report(draw: Draw, row: Row) -> None:
            run = f"{name_draw(draw).capitalize()}, epoch" if several else "Epoch"
            labels["training"] = f"{run} {row['epoch']}, prec1 {row['validation_prec1']:.1f}"
            bars.relabel("training")
            if not sys.stderr.isatty():
                say(
                    f"{run} {row['epoch']}: train loss {row['train_loss']:.3f}, validation "
                    f"{format_row(row)}",
                    err=True,
                )

        given = {**chosen, **recipe, "progress": bars.show}
        if several:
            runs: dict[str, Any] = {"seeds": seeds, "folds": folds, "ray": ray}
            runs["threads"] = threads or 1
            series = train_series(cache, out, report=report, **runs, **given)
        else:
            draw = Draw(seeds[0], folds[0] if folds else None)
            told = partial(report, draw)
            summary = train_model(cache, out, report=told, **draw._asdict(), **given)
    seconds = time.monotonic() - started
    if several:
        results.tell(describe_series(series, out, seconds), format_series(series, seconds))
    else:
        results.tell(describe_run(summary, out, seconds), format_run(summary, seconds))


if __name__ == "__main__":
    main()
