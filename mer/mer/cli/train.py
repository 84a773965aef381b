"""``mer-train``: a cache to a checkpoint."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from mer.cli.stages import StageBars
from mer.protocols import PROTOCOL_NAMES
from mer.runs import Row
from mer.training import TrainingSummary, train_model
from mer_runtime.console import Command
from mer_runtime.spec import FUSIONS


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--fusion",
    type=click.Choice(FUSIONS),
    required=True,
    help="ia: intermediate attention; it: intermediate transformer; lt: late transformer.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="RUN",
    help="Folder of the run; made if need be.",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOL_NAMES),
    default="paper",
    show_default=True,
    help="paper: as published; reference: what the public code really does; "
    "tuned: for small corpora and a frozen encoder.",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights to start the face encoder from: of mer-pretrain, of a checkpoint, or of "
    "a published EfficientFace.  [default: random; with --freeze, the shipped encoder]",
)
@click.option(
    "--freeze",
    type=click.Choice(["encoder"]),
    help="Leave the encoder as it is: its features are computed once and kept in the cache, "
    "which makes an epoch a matter of seconds.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="In place of the protocol's.")
@click.option("--batch-size", type=click.IntRange(min=1), help="In place of the protocol's.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="In place of the protocol's.",
)
@click.option("--weight-decay", type=click.FloatRange(min=0), help="In place of the protocol's.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--fold", type=click.IntRange(1, 5), help="Cross-validation fold; the default split without."
)
@click.option(
    "--num-heads",
    type=click.Choice(["1", "2", "4", "8", "16", "32", "64"]),
    default="1",
    show_default=True,
    help="Attention heads.",
)
@click.option("--n-mfcc", type=click.IntRange(1, 128), help="Number of MFCCs.  [default: 10]")
@click.option("--resume", is_flag=True, help="Go on with the run in RUN, if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def main(cache: Path, out: Path, num_heads: str, as_json: bool, **options: Any) -> None:
    """Train on CACHE (see mer-prepare): training actors teach, validation actors judge.

    Writes into RUN: best.safetensors (the epoch with the highest validation prec1),
    metrics.csv, curves.png (loss and prec1), run.json (every setting) and last.pt (for
    --resume). Stopped by Ctrl-C, the same command with --resume goes on where it was.

    \b
    Example:
      mer-train cache/ravdess --fusion ia --out runs/ia \\
          --encoder runs/encoder/encoder.safetensors --freeze encoder
      mer-eval runs/ia/best.safetensors cache/ravdess
    """
    started = time.monotonic()
    labels = {"features": "Encoding faces", "training": "Training"}
    with StageBars(labels) as bars:

        def report(row: Row) -> None:
            labels["training"] = f"Epoch {row['epoch']}, prec1 {row['validation_prec1']:.1f}"
            bars.relabel("training")

        summary = train_model(
            cache, out, num_heads=int(num_heads), report=report, progress=bars.show, **options
        )
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps(_describe(summary, out, seconds)))
    else:
        click.echo(_format(summary, seconds))


def _describe(summary: TrainingSummary, out: Path, seconds: float) -> dict[str, Any]:
    return {
        "run": str(out),
        "checkpoint": str(summary.checkpoint),
        "epochs": summary.epochs,
        "best": {name: round(value, 6) for name, value in summary.best.items()},
        "seconds": round(seconds, 1),
    }


def _format(summary: TrainingSummary, seconds: float) -> str:
    best = summary.best
    return (
        f"best of {summary.epochs} epochs is {best['epoch']}: "
        f"validation prec1 {best['validation_prec1']:.1f} %, "
        f"prec5 {best['validation_prec5']:.1f} %, loss {best['validation_loss']:.3f} "
        f"({seconds:.0f} s)\n{summary.checkpoint}"
    )


if __name__ == "__main__":
    main()
