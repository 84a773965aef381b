"""Pre-training of a face encoder on still face photos (paper, 5.1.1: AffectNet, 7 classes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mer.data.cache import Cache
from mer.data.classes import Classes
from mer.data.clip_photos import add_clips
from mer.data.photo_augmentation import enlarge
from mer.data.photos import Photos, load_halves, split_photos
from mer.errors import TrainingError
from mer.models import own_hash, require_crops
from mer.train.photo_learner import PhotoLearner, PretrainingRecipe
from mer.train.photo_net import PhotoNet, PhotoTeacher, load_photo_weights, save_photo_net
from mer.train.runs import Row, RunFolder
from mer_runtime.files import hash_file
from mer_runtime.spec import ENCODER

ENCODER_FILE = "encoder.safetensors"
METRICS_FIELDS = (
    "epoch",
    "size",
    "lr",
    "train_loss",
    "validation_prec1",
    "validation_uar",
    "test_prec1",
    "test_uar",
)


def pretrain_encoder(
    photos: str | Path,
    out: str | Path,
    *,
    encoder: str = ENCODER,
    start: str | Path | None = None,
    teachers: Sequence[str | Path] = (),
    clips: str | Path | None = None,
    classes: Classes | None = None,
    recipe: PretrainingRecipe | None = None,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[Row], None] | None = None,
    step: Callable[[int, int], None] | None = None,
) -> Row:
    """Train a face encoder on ``photos`` (see ``mer.data.photos``) and write it to ``out``.

    A tenth of the training photos is held out, and scored after each epoch: what helps is decided
    on those. The test photos are scored once, after the last epoch.

    Writes ``encoder.safetensors`` (the moving average of the weights; those of EfficientFace are
    named as in its published checkpoints), ``run.json``, ``metrics.csv``, and ``last.pt`` to
    resume from. The same seed gives the same weights on the same machine, resumed or not.

    Args:
        encoder: which one, by its name in ``mer.models.ENCODERS``, or what ``mer.add_model`` gave.
        start: an ``encoder.safetensors`` of the same encoder and labels, to start from.
        teachers: ``encoder.safetensors`` files of other runs on photos with the same labels. The
            encoder learns to give their features, and their answers' mean.
        clips: a cache of mer-prepare, whose training actors' faces join the training photos.
        classes: which of the clips' labels each of the photos' labels stands for (see
            ``mer.data.clip_photos``).
        report: called with a row of metrics after each epoch.
        step: called with (batches done, batches in all) after each batch.

    Returns:
        The last epoch's metrics; prec1 and uar (unweighted average recall) in percent.

    Raises:
        CorpusError: the photos can't be read, or are too few, or ``classes`` doesn't fit.
        CacheError: ``clips`` is no finished cache.
        CheckpointError: ``start`` or a teacher can't be read or has other labels.
        SpecError: there is no such encoder, or it doesn't take crops of the recipe's sizes.
        TrainingError: ``out`` holds a run and ``resume`` is not set, it is another run or its
            state is damaged, or the loss isn't finite.
        OutputError: ``out`` can't be written.
    """
    recipe = recipe or PretrainingRecipe()
    for size in (recipe.size, recipe.first_size):
        require_crops(encoder, size)
    cache = Cache.open(clips) if clips else None
    every, test = load_halves(Path(photos), recipe.size)
    train, validation = split_photos(every)
    if cache is not None:
        train = add_clips(train, cache, classes)
    if len(train.classes) < recipe.batch_size:
        raise TrainingError(
            f"{len(train.classes)} photos make no batch of {recipe.batch_size}: give more"
        )
    teacher = PhotoTeacher(teachers, train.labels, device) if teachers else None
    torch.manual_seed(recipe.seed)
    net = PhotoNet(encoder, train.labels).to(device)
    if start:
        load_photo_weights(net, Path(start))
    settings = {
        "encoder": encoder,
        "start": hash_file(Path(start)) if start else None,
        "recipe": asdict(recipe),
        "photos": every.digest,
        "clips": None if cache is None else cache.digest,
        "classes": classes and {name: list(labels) for name, labels in classes.items()},
        "teachers": teacher.digests if teacher else [],
    }
    if digest := own_hash(encoder):
        settings["face_encoder"] = {"name": encoder, "sha256": digest}
    place = {
        "photos": str(photos),
        "start": str(start) if start else None,
        "clips": str(clips) if clips else None,
        "teachers": list(map(str, teachers)),
        "device": device,
    }
    run = RunFolder(
        Path(out), {"settings": settings, "place": place}, resume=resume, fields=METRICS_FIELDS
    )
    learner = PhotoLearner(net, recipe, train, teacher, device)
    rows: list[Row] = []
    if run.resumed:
        state = run.load_state(device)
        learner.load_state(state["learner"])
        rows = state["rows"]
    for epoch in range(len(rows), recipe.epochs):
        row = learner.run_epoch(epoch, step)
        size = int(row["size"])
        scores = score_encoder(learner.average, validation, size, device)
        row.update(validation_prec1=scores[0], validation_uar=scores[1])
        if epoch + 1 == recipe.epochs:
            scores = score_encoder(learner.average, test, size, device)
            row.update(test_prec1=scores[0], test_uar=scores[1])
        rows.append(row)
        note = {**settings, "size": recipe.size, "labels": train.labels, "metrics": row}
        save_photo_net(run.path / ENCODER_FILE, learner.average, note)
        run.save_epoch(rows, {"learner": learner.state(), "rows": rows})
        if report:
            report(row)
    run.finish(rows[-1])
    return rows[-1]


@torch.inference_mode()
def score_encoder(net: nn.Module, photos: Photos, size: int, device: str) -> tuple[float, float]:
    """prec1 and unweighted average recall, in percent, without augmentation."""
    net.eval()
    answers = [
        net(enlarge(pixels.to(device), size)).argmax(dim=1).cpu()
        for pixels in torch.from_numpy(photos.pixels).split(128)
    ]
    right = torch.cat(answers).numpy() == photos.classes
    present = np.unique(photos.classes)
    recalls = [right[photos.classes == c].mean() for c in present]
    return 100 * float(right.mean()), 100 * float(np.mean(recalls))
