"""``mer-pretrain``: face photos to a face encoder."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from mer.cli.stages import StageBars
from mer.data.dataset import require_device
from mer.train.pretraining import ENCODER_FILE, PretrainingRecipe, pretrain_encoder
from mer_runtime import options
from mer_runtime.console import Command
from mer_runtime.options import Results


@click.command("mer-pretrain", cls=Command)
@click.argument("photos", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="RUN",
    help="Folder of the run; made if need be.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=PretrainingRecipe.epochs,
    show_default=True,
    help="The last see pictures of 224 pixels, most of half of that.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=PretrainingRecipe.seed, show_default=True
)
@options.device
@options.resume
@options.results
@options.common
def main(
    photos: Path, out: Path, epochs: int, seed: int, device: str, resume: bool, results: Results
) -> None:
    """Train the face encoder on still photos, for mer-train's --encoder.

    PHOTOS is a folder or a zip file with train/LABEL/*.jpg and test/LABEL/*.jpg, as FER2013
    is published. Writes into RUN: encoder.safetensors after each epoch, metrics.csv, and last.pt
    for --resume.

    \b
    Example:
      mer-pretrain fer2013.zip --out runs/encoder
      mer-train cache/ravdess --fusion ia --out runs/ia \\
          --encoder runs/encoder/encoder.safetensors --freeze encoder
    """
    require_device(device)
    started = time.monotonic()
    recipe = dataclasses.replace(PretrainingRecipe(), epochs=epochs, seed=seed)
    labels = {"training": "Training"}
    with StageBars(labels) as bars:

        def report(row: dict[str, float]) -> None:
            labels["training"] = f"Epoch {row['epoch']}, prec1 {row['test_prec1']:.1f}"
            bars.relabel("training")

        last = pretrain_encoder(
            photos,
            out,
            recipe=recipe,
            device=device,
            resume=resume,
            report=report,
            step=lambda done, total: bars.show("training", done, total),
        )
    seconds = time.monotonic() - started
    encoder = out / ENCODER_FILE
    results.tell(
        {"encoder": str(encoder), "metrics": last, "seconds": round(seconds, 1)},
        f"{last['epoch']} epochs: test prec1 {last['test_prec1']:.1f} %, "
        f"uar {last['test_uar']:.1f} % ({seconds:.0f} s)\n{encoder}",
    )


if __name__ == "__main__":
    main()
