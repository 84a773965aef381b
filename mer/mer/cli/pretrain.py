"""``mer-pretrain``: face photos to a face encoder."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import click

from mer.cli.options import add_networks, face_encoder, new_networks, run_folder
from mer.cli.stages import StageBars
from mer.data.classes import parse_classes
from mer.data.dataset import require_device
from mer.data.photo_augmentation import PhotoAugmentation
from mer.train.photo_learner import PretrainingRecipe
from mer.train.pretraining import ENCODER_FILE, pretrain_encoder
from mer_runtime import options
from mer_runtime.console import Command, say
from mer_runtime.options import Results
from mer_runtime.spec import ENCODER


@click.command("mer-pretrain", cls=Command)
@click.argument("photos", type=click.Path(path_type=Path))
@run_folder
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=PretrainingRecipe.epochs,
    show_default=True,
    help="Two thirds of them see smaller crops, where there are such.",
)
@face_encoder
@new_networks("A face encoder of one's own, in place of --face-encoder.")
@click.option(
    "--size",
    type=click.IntRange(min=32, max=512),
    default=PretrainingRecipe.size,
    show_default=True,
    help="Pixels of the crops that it is for: a multiple of 16.",
)
@click.option(
    "--small-size",
    type=click.IntRange(min=32, max=512),
    help="Pixels of the crops in the first two thirds of the epochs, which cost less so. "
    "[default: half of --size from 192 on, else --size]",
)
@click.option(
    "--augment",
    "strength",
    type=click.FloatRange(min=0, max=1),
    default=1.0,
    show_default=True,
    help="How far photos are varied. A small net learns more in few epochs where that is less; "
    "0 only flips them.",
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path),
    metavar="ENCODER",
    help="Start from the weights of another run's encoder.safetensors.",
)
@click.option(
    "--teacher",
    "teachers",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="ENCODER",
    help="An encoder.safetensors to learn from as well; several teach their mean.",
)
@click.option(
    "--clips",
    type=click.Path(path_type=Path),
    metavar="CACHE",
    help="Faces of this cache's training actors join the training photos (see mer-prepare).",
)
@click.option(
    "--classes",
    metavar="LIST",
    help="Which of the clips' labels the photos' labels stand for, as in "
    "fear=fearful,neutral=neutral+calm. [default: those of the same name]",
)
@click.option(
    "--balance",
    type=click.FloatRange(min=0, max=1),
    default=PretrainingRecipe.balance,
    show_default=True,
    help="0 draws photos as they come, 1 as many of each class.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=PretrainingRecipe.seed, show_default=True
)
@options.device
@options.resume
@options.results
@options.common
def main(
    photos: Path,
    out: Path,
    epochs: int,
    face_encoder: str | None,
    models: tuple[str, ...],
    size: int,
    small_size: int | None,
    strength: float,
    start: Path | None,
    teachers: tuple[Path, ...],
    clips: Path | None,
    classes: str | None,
    balance: float,
    seed: int,
    device: str,
    resume: bool,
    results: Results,
) -> None:
    """Train the face encoder on still photos, for mer-train's --encoder.

    PHOTOS is a folder or a zip file with train/LABEL/*.jpg and test/LABEL/*.jpg, as FER2013
    is published. A tenth of the training photos is held out and scored after each epoch; the test
    photos are scored once, at the end. Writes into RUN: encoder.safetensors after each epoch,
    run.json, metrics.csv, and last.pt for --resume.

    \b
    Example:
      mer-pretrain fer2013.zip --out runs/encoder
      mer-train cache/ravdess --fusion ia --out runs/ia \\
          --encoder runs/encoder/encoder.safetensors --freeze encoder
      mer-pretrain fer2013.zip --out runs/compact --face-encoder compact --size 96 \\
          --teacher runs/encoder/encoder.safetensors
      mer-pretrain fer2013.zip --out runs/more --face-encoder compact --size 96 --small-size 64 \\
          --augment 0.3 --epochs 20 --from runs/compact/encoder.safetensors
      mer-pretrain fer2013.zip --out runs/mine --model my_encoder.py:MyEncoder --size 96
    """
    require_device(device)
    if classes and not clips:
        raise click.UsageError("--classes says what the labels of --clips stand for: give that too")
    named = {"face_encoder": face_encoder}
    encoder = add_networks(models, named, taught=bool(teachers))["face_encoder"] or ENCODER
    started = time.monotonic()
    recipe = dataclasses.replace(
        PretrainingRecipe(),
        epochs=epochs,
        size=size,
        small_size=small_size,
        seed=seed,
        balance=balance,
        augmentation=PhotoAugmentation().scaled(strength),
    )
    labels = {"training": "Training"}
    with StageBars(labels) as bars:

        def report(row: dict[str, float]) -> None:
            labels["training"] = f"Epoch {row['epoch']}, prec1 {row['validation_prec1']:.1f}"
            bars.relabel("training")
            if not sys.stderr.isatty():
                say(f"{labels['training']} %, train loss {row['train_loss']:.3f}", err=True)

        last = pretrain_encoder(
            photos,
            out,
            encoder=encoder,
            start=start,
            teachers=teachers,
            clips=clips,
            classes=parse_classes(classes) if classes else None,
            recipe=recipe,
            device=device,
            resume=resume,
            report=report,
            step=lambda done, total: bars.show("training", done, total),
        )
    seconds = time.monotonic() - started
    file = out / ENCODER_FILE
    results.tell(
        {"encoder": str(file), "metrics": last, "seconds": round(seconds, 1)},
        f"{last['epoch']} epochs: test prec1 {last['test_prec1']:.1f} %, "
        f"uar {last['test_uar']:.1f} % ({seconds:.0f} s)\n{file}",
    )


if __name__ == "__main__":
    main()
