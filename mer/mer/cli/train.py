"""``mer-train``: a cache to a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mer.cli.stages import StageBars
from mer.models import ENCODERS, FUSIONS
from mer.protocols import MODALITIES, PROTOCOL_NAMES
from mer.train.runs import Row
from mer.train.training import TrainingSummary, train_model
from mer_runtime import options
from mer_runtime.console import Command
from mer_runtime.options import Results
from mer_runtime.spec import ENCODER


@click.command("mer-train", cls=Command)
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--fusion",
    type=click.Choice(list(FUSIONS)),
    required=True,
    help="ia: intermediate attention; it: intermediate transformer; lt: late transformer; "
    "gated: as ia, and the less reliable modality counts less.",
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
    "tuned: for small corpora and a frozen encoder; balanced: as tuned, each clip with either "
    "modality alone too; robust: as balanced, each modality spoilt as well.",
)
@click.option(
    "--modality",
    type=click.Choice(MODALITIES),
    default="both",
    show_default=True,
    help="audio or video trains and validates on that one alone: a single-modality model to "
    "compare with.",
)
@click.option(
    "--encoder",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights to start the face encoder from: of mer-pretrain, of a checkpoint, or of "
    "a published EfficientFace.  [default: random; with --freeze encoder, the shipped one]",
)
@click.option(
    "--face-encoder",
    type=click.Choice(list(ENCODERS)),
    default=ENCODER,
    show_default=True,
    help="Which face encoder.",
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Start from all of a checkpoint's weights (fine-tuning); with other classes, from all but "
    "its classifiers.",
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
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@options.device
@click.option(
    "--fold",
    type=click.IntRange(1, 5),
    help="Cross-validation fold; without, the default split.",
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
@options.resume
@options.results
@options.common
def main(cache: Path, out: Path, results: Results, **recipe: Any) -> None:
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

        summary = train_model(cache, out, report=report, progress=bars.show, **recipe)
    seconds = time.monotonic() - started
    results.tell(_describe(summary, out, seconds), _format(summary, seconds))


def _describe(summary: TrainingSummary, out: Path, seconds: float) -> dict[str, Any]:
    return {
        "run": str(out),
        "checkpoint": str(summary.checkpoint),
        "epochs": summary.epochs,
        "best": _rounded(summary.best),
        "confidence": _rounded(summary.confidence.to_dict()),
        "seconds": round(seconds, 1),
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def _format(summary: TrainingSummary, seconds: float) -> str:
    best, confidence = summary.best, summary.confidence
    lines = [
        f"best of {summary.epochs} epochs is {best['epoch']}: validation {_format_row(best)} "
        f"({seconds:.0f} s)",
        f"temperature {confidence.temperature:.3f}: "
        f"ECE {confidence.ece:.2f} % (without {confidence.ece_before:.2f} %)",
        str(summary.checkpoint),
    ]
    return "\n".join(lines)


def _format_row(row: Row) -> str:
    return (
        f"prec1 {row['validation_prec1']:.1f} %, prec5 {row['validation_prec5']:.1f} %, "
        f"loss {row['validation_loss']:.3f}"
    )


if __name__ == "__main__":
    main()
