"""Training of the fused network on a cache, by a protocol, with a live or a frozen encoder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mer.checkpoint import Checkpoint, load_checkpoint, load_encoder, save_checkpoint
from mer.data.cache import Cache
from mer.data.dataset import measure_standardisation, require_device
from mer.data.features import hash_encoder
from mer.errors import TrainingError
from mer.evaluate.confidence import (
    Confidence,
    describe_confidence,
    gather_temperatures,
    measure_confidence,
)
from mer.models import build_model, own_hash, require_crops
from mer.protocols import Protocol, restrict_protocol
from mer.train.board import Log, open_log, require_log
from mer.train.distillation import Distillation
from mer.train.learner import Learner, Progress
from mer.train.plan import customise_protocol, describe_protocol
from mer.train.plots import plot_curves
from mer.train.runs import Row, RunFolder, find_best, is_better
from mer.train.start import load_start
from mer.train.teacher import ClipTeacher
from mer.weights import SHIPPED_ENCODERS, find_checkpoint
from mer_runtime.errors import OutputError
from mer_runtime.feeds import MODALITIES, Modality
from mer_runtime.files import hash_file, is_same_file
from mer_runtime.spec import ENCODER, Fusion, Spec

logger = logging.getLogger(__name__)

Freeze = Literal["encoder", "none"]

#: The curves are drawn after this many epochs, and at the end.
CURVES_EVERY = 10


@dataclass(frozen=True)
class TrainingSummary:
    """A finished run.

    Attributes:
        best: the best epoch's metrics, as in ``metrics.csv``.
        epochs: how many there were.
        checkpoint: where the best epoch's model is.
        confidence: its temperature and ECE on the validation clips, by what they are shown with.
    """

    best: Row
    epochs: int
    checkpoint: Path
    confidence: dict[Modality, Confidence]


def train_model(
    cache: str | Path,
    out: str | Path,
    *,
    fusion: Fusion = "ia",
    protocol: str | Protocol = "paper",
    modality: Modality = "both",
    encoder: str | Path | None = None,
    face_encoder: str = ENCODER,
    start: str | Path | None = None,
    teacher: str | Path | None = None,
    distillation: Distillation | None = None,
    freeze: Freeze | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    seed: int = 1,
    device: str = "cpu",
    resume: bool = False,
    fold: int | None = None,
    num_heads: int = 1,
    size: int | None = None,
    n_mfcc: int | None = None,
    n_fft: int | None = None,
    hop_length: int | None = None,
    n_mels: int | None = None,
    bf16: bool = False,
    log: Log | None = None,
    report: Callable[[Row], None] | None = None,
    progress: Progress | None = None,
) -> TrainingSummary:
    """Train on the cache's training actors, validate each epoch, keep the best epoch's model.

    Writes into ``out``: ``run.json`` (every setting), ``metrics.csv``, ``curves.png``,
    ``best.safetensors`` (highest validation prec1; of equals, lowest loss) and ``last.pt`` to
    resume from. At the end a temperature is fitted to the best model's answers on the validation
    actors and kept in it (``mer.evaluate.confidence``). The same seed gives the same figures on the
    same machine, resumed or not.

    Args:
        protocol: a name from ``PROTOCOLS`` or a protocol.
        modality: ``"audio"`` or ``"video"`` trains and validates on that one alone, the other
            missing in every clip: a single-modality model in the same network.
        fusion, face_encoder: names in ``mer.models.FUSIONS`` and ``mer.models.ENCODERS``, or what
            ``mer.add_model`` gave.
        encoder: weights that ``mer.checkpoint.load_encoder`` reads, or the name of a checkpoint
            that ships; so are ``start`` and ``teacher``. Without, a frozen encoder
            is that of the shipped checkpoint with such an encoder; one that is trained starts at
            random.
        start: a checkpoint of the same fusion and encoder whose weights training starts from
            (fine-tuning). Where it has other classes, the classifiers start at random. Where
            ``encoder`` is given too, that replaces its encoder.
        teacher: a checkpoint with the same labels to learn from, beside the labels: its answers
            and, where the encoder is trained, its frame features (``mer.train.teacher``).
        distillation: how much the teacher counts.
        freeze: ``"encoder"`` leaves the encoder as it is. Its frame features are computed once
            and kept in the cache; angles and lights are then rounded to a few
            (``mer.data.features``). ``"none"`` trains it, as without.
        epochs, batch_size, learning_rate, weight_decay: replace what the protocol says.
        fold: 1 to 5 for cross-validation, None for the default split.
        size: pixels of the crops, at most the cache's; the cache's without.
        n_mfcc, n_fft, hop_length, n_mels: of the MFCCs, as in ``AudioSpec``; the cache's without.
        log: ``tensorboard`` writes the metrics for TensorBoard too, into ``out``.
        bf16: compute products of training steps in bfloat16: faster where a GPU or the CPU (AMX,
            AVX512-BF16) has it, slower elsewhere. Weights and validation stay float32.
        report: called with a row of metrics after each epoch.

    Raises:
        CacheError, CorpusError: the cache can't be read or lacks a split.
        CheckpointError: ``encoder`` can't be read, or is another encoder's.
        SpecError: there is no such fusion or encoder, or it doesn't take crops of that size.
        MissingExtraError: ``log`` needs a package that isn't installed.
        TrainingError: the run can't start, ``start`` or ``teacher`` is of another kind, the run
            differs from the one to resume, or diverges.
        OutputError: ``out`` can't be written.
    """
    plan = customise_protocol(protocol, epochs, batch_size, learning_rate, weight_decay)
    plan = restrict_protocol(plan, modality)
    frozen = freeze == "encoder"
    if distillation is not None and teacher is None:
        raise TrainingError("distillation needs a teacher")
    if frozen and start is None:
        # A frozen encoder has to know faces already.
        if encoder is None and face_encoder not in SHIPPED_ENCODERS:
            raise TrainingError(
                f"no checkpoint that ships has the face encoder {face_encoder}: give its weights "
                "(--encoder), or don't freeze it"
            )
        encoder = find_checkpoint(encoder or SHIPPED_ENCODERS[face_encoder])
    elif encoder is not None:
        encoder = find_checkpoint(encoder)
    require_device(device, bf16=bf16)
    if log is not None:
        require_log(log)
    data = Cache.open(cache)
    if is_same_file(Path(out), cache):
        raise OutputError(out, "it is the cache: name another folder for the run")
    rows = {split: data.select(split, fold) for split in ("train", "validation")}
    heard = data.spec.audio
    audio = dataclasses.replace(
        heard,
        n_mfcc=n_mfcc or heard.n_mfcc,
        n_fft=n_fft or heard.n_fft,
        hop_length=hop_length or heard.hop_length,
        n_mels=n_mels or heard.n_mels,
    )
    audio = measure_standardisation(data, rows["train"], audio)
    spec = dataclasses.replace(
        data.spec,
        audio=audio,
        video=dataclasses.replace(data.spec.video, size=size or data.spec.video.size),
        fusion=fusion,
        num_heads=num_heads,
        encoder=face_encoder,
    )
    data.require(spec)
    require_crops(face_encoder, spec.video.size)
    torch.manual_seed(seed)
    model = build_model(spec)
    notes: dict[str, Any] = {}
    taught: Checkpoint | None = None
    for kind, name in (("fusion", fusion), ("face_encoder", face_encoder)):
        if digest := own_hash(name):
            notes[kind] = {"name": name, "sha256": digest}
    if start is not None:
        start = find_checkpoint(start)
        notes["start"] = load_start(model, spec, start)
    if encoder is not None:
        model.visual_model.load_state_dict(load_encoder(encoder, face_encoder), strict=False)
    if teacher is not None:
        teacher = find_checkpoint(teacher)
        taught = load_checkpoint(teacher)
        notes["teacher"] = hash_file(teacher)
        notes["distillation"] = dataclasses.asdict(distillation or Distillation())
    model = model.to(device)
    settings = {
        "fusion": fusion,
        "protocol": describe_protocol(plan),
        "encoder": hash_encoder(model) if encoder else None,
        "freeze": "encoder" if frozen else None,
        "seed": seed,
        "fold": fold,
        "corpus": data.digest,
        "splits": data.hash_splits(),
        "spec": spec.to_dict(),
        "bf16": bf16,
        **notes,
    }
    logger.info(
        "%d clips train and %d validate; the encoder is %s, from %s",
        *(len(rows[split]) for split in ("train", "validation")),
        "frozen" if frozen else "trained",
        encoder or start or "random weights",
    )
    place = {"cache": str(cache), "encoder": str(encoder) if encoder else None, "device": device}
    guide = ClipTeacher(taught, data, spec, device) if taught else None
    run = RunFolder(Path(out), {"settings": settings, "place": place}, resume=resume)
    learner = Learner(
        model,
        plan,
        data,
        spec,
        rows,
        frozen=frozen,
        device=device,
        bf16=bf16,
        teacher=guide,
        distillation=distillation,
    )
    with open_log(log, run.path) as write:

        def tell(row: Row) -> None:
            write(row)
            if report:
                report(row)

        return complete_run(run, learner, spec, settings, seed, tell, progress)


def complete_run(
    run: RunFolder,
    learner: Learner,
    spec: Spec,
    settings: Mapping[str, Any],
    seed: int,
    report: Callable[[Row], None] | None,
    progress: Progress | None,
) -> TrainingSummary:
    """Run the epochs that ``run`` still lacks, keep the best one's model, fit its temperature.

    Raises:
        TrainingError: the loss isn't finite, or the protocol has no epochs.
        OutputError: the run's folder can't be written.
    """
    learner.prepare(progress)
    history: list[Row] = []
    if run.resumed:
        state = run.load_state(learner.device)
        learner.load_state(state["learner"])
        history = state["rows"]
    best = find_best(history)
    for row in learner.run_epochs(list(history), seed, progress):
        history.append(row)
        if is_better(row, best):
            best = row
            save_checkpoint(run.best, learner.kept, spec, notes={**settings, "metrics": row})
        if row["epoch"] % CURVES_EVERY == 0 or row["epoch"] == learner.protocol.epochs:
            plot_curves(history, run.curves)
        run.save_epoch(history, {"learner": learner.state(), "rows": history})
        if report:
            report(row)
    if best is None:
        raise TrainingError("there is nothing to train: the protocol has no epochs")
    confidence = _fit_confidence(run, learner)
    run.finish({"best": best, "confidence": describe_confidence(confidence)})
    return TrainingSummary(best, int(history[-1]["epoch"]), run.best, confidence)


def _fit_confidence(run: RunFolder, learner: Learner) -> dict[Modality, Confidence]:
    """Fit the best model's temperatures to its validation answers, and add them to its file."""
    best = load_checkpoint(run.best)
    learner.kept.load_state_dict(best.model.state_dict())
    # A model of one modality is shown nothing else.
    only = learner.protocol.modality
    fed = MODALITIES if only == "both" else (only,)
    confidence = {one: measure_confidence(*learner.answer_validation(one)) for one in fed}
    save_checkpoint(
        run.best,
        best.model,
        best.spec,
        notes={**best.notes, "confidence": describe_confidence(confidence)},
        temperatures=gather_temperatures(confidence),
    )
    return confidence
