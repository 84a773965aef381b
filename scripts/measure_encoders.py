"""Compare face encoders under one short protocol; write the table.

    python scripts/measure_encoders.py fer2013 cache/ravdess runs/encoders

Each encoder is trained on FER2013's photos and the training actors' faces for three epochs, then a
fusion on its frozen features, then int8 for both engines. Everything is scored on the photos held
out and on the validation actors: it serves to choose. It goes on where it was stopped, and writes
docs/encoders.json and its table. An hour on two cores.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from make_tables import ROOT, write_all_tables
from mer import PretrainingRecipe, evaluate_model, pretrain_encoder, train_model
from mer.data.classes import parse_classes
from mer.data.photo_augmentation import PhotoAugmentation
from mer.models import build_encoder
from mer_bench.worker import time_second
from mer_calibration import Ranges
from mer_export import ExportOptions, export_bundle
from mer_export.inspection.bundles import inspect_bundle
from mer_export.ranges import RANGES_FILE
from mer_runtime.bundle import Target
from mer_runtime.console import Command
from mer_runtime.engines.processor import name_cpu
from mer_runtime.feeds import MODALITIES, Modality
from mer_runtime.files import write_file
from mer_runtime.recognizer import Recognizer
from mer_runtime.turns import take_turns

DATA = ROOT / "docs" / "encoders.json"
#: Epochs on photos (the last at the encoder's own size, the others at ``SMALL`` pixels), and those
#: of the fusion.
PHOTO_EPOCHS, SMALL, FUSION_EPOCHS = 3, 64, 12
#: How far photos are varied, and how evenly their classes are drawn.
VARIED, BALANCE = 0.3, 0.8
#: FER2013's labels, and the clips' that they stand for.
CLASSES = "angry,disgust,fear=fearful,happy,neutral=neutral+calm,sad,surprise=surprised"
#: Encodings of a window that are timed, in turns, with so many threads.
ROUNDS, THREADS = 20, 2
#: By what the table calls an engine.
TARGETS: dict[str, Target] = {"onnxruntime": "onnx", "openvino": "openvino"}


@dataclass(frozen=True)
class Candidate:
    """An encoder at a size of crop in pixels."""

    encoder: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.encoder}-{self.size}"


CANDIDATES = (
    Candidate("compact", 96),
    Candidate("efficientface", 96),
    Candidate("efficientface", 112),
    Candidate("efficientface-narrow", 112),
)


@click.command(cls=Command)
@click.argument("photos", type=click.Path(path_type=Path, exists=True))
@click.argument("cache", type=click.Path(path_type=Path, exists=True))
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--only", multiple=True, type=click.Choice([one.name for one in CANDIDATES]))
def main(photos: Path, cache: Path, runs: Path, only: tuple[str, ...]) -> None:
    """Train, export and time every encoder on PHOTOS and CACHE; RUNS keeps what was trained."""
    chosen = [one for one in CANDIDATES if not only or one.name in only]
    rows = {}
    for one in chosen:
        click.echo(one.name, err=True)
        rows[one.name] = measure(one, photos, cache, runs)
    for name, times in time_encoders(chosen, runs).items():
        rows[name]["milliseconds"] = times
    machine = {"processor": name_cpu(), "threads": THREADS, "rounds": ROUNDS}
    found = {**machine, "rows": list(rows.values())}
    write_file(DATA, json.dumps(found, indent=1) + "\n")
    write_all_tables()


def measure(one: Candidate, photos: Path, cache: Path, runs: Path) -> dict[str, Any]:
    """Everything but its speed."""
    learned = learn_photos(one, photos, cache, runs / one.name)
    fused = learn_clips(one, cache, runs)
    row: dict[str, Any] = {
        "encoder": one.encoder,
        "size": one.size,
        "photos": round(learned, 1),
        "clips": {shown: score(fused, cache, shown) for shown in MODALITIES},
        "parameters": sum(one.numel() for one in build_encoder(one.encoder).parameters()),
        "sqnr": {},
    }
    for engine, target in TARGETS.items():
        bundle = runs / f"{one.name}-{engine}"
        if not bundle.is_dir():
            options = ExportOptions(target=target, timing=False)
            export_bundle(fused, bundle, options, calibration=cache)
        ranges = Ranges.read(bundle / RANGES_FILE)
        told = inspect_bundle(bundle)
        assert told.dialect is not None
        row["sqnr"][engine] = round(ranges.of(told.dialect).noise.sqnr, 1)
        encoder = next(graph for graph in told.graphs if graph.name == "encoder")
        row["macs"] = sum(layer.macs for layer in encoder.layers)
    return row


def learn_photos(one: Candidate, photos: Path, cache: Path, out: Path) -> float:
    """Train on photos; percent of the photos held out that it names."""
    metrics = out / "metrics.csv"
    last = read_last(metrics) if metrics.is_file() else {}
    if not last.get("test_prec1"):  # which is scored when a run is done
        pretrain_encoder(
            photos,
            out,
            encoder=one.encoder,
            clips=cache,
            classes=parse_classes(CLASSES),
            recipe=PretrainingRecipe(
                epochs=PHOTO_EPOCHS,
                size=one.size,
                small_size=SMALL,
                balance=BALANCE,
                augmentation=PhotoAugmentation().scaled(VARIED),
            ),
            resume=out.is_dir(),
        )
        last = read_last(metrics)
    return float(last["validation_prec1"])


def read_last(metrics: Path) -> dict[str, str]:
    """The last epoch's row."""
    with metrics.open() as file:
        return list(csv.DictReader(file))[-1]


def learn_clips(one: Candidate, cache: Path, runs: Path) -> Path:
    """Train the fusion on frozen features; its checkpoint."""
    out = runs / f"{one.name}-fusion"
    summary = train_model(
        cache,
        out,
        fusion="gated",
        protocol="balanced",
        face_encoder=one.encoder,
        encoder=runs / one.name / "encoder.safetensors",
        freeze="encoder",
        size=one.size,
        epochs=FUSION_EPOCHS,
        resume=out.is_dir(),
    )
    return summary.checkpoint


def score(checkpoint: Path, cache: Path, shown: Modality) -> float:
    """prec1 on the validation actors."""
    found = evaluate_model(checkpoint, cache, split="validation", modality=shown)
    return round(found.scores.prec1, 1)


def time_encoders(chosen: list[Candidate], runs: Path) -> dict[str, dict[str, float]]:
    """Median milliseconds of a window's crops by encoder and engine, all in turns."""
    work: dict[str, Callable[[], float]] = {}
    for one in chosen:
        for engine in TARGETS:
            bundle = runs / f"{one.name}-{engine}"
            recognizer = Recognizer.load(bundle, threads=THREADS)
            shape = recognizer.spec.video.shape
            crops = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            work[f"{one.name} {engine}"] = partial(time_second, partial(recognizer.encode, crops))
    found: dict[str, dict[str, float]] = {one.name: {} for one in chosen}
    for name, times in take_turns(work, ROUNDS, warm_up=3).items():
        candidate, engine = name.split()
        found[candidate][engine] = round(statistics.median(times), 1)
    return found


if __name__ == "__main__":
    main()
