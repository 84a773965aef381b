"""Training on a small cache: it learns, keeps its promises, and goes on where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mer import load_checkpoint
from mer.checkpoint import load_encoder
from mer.data.augmentation import Example, FaceView
from mer.data.cache import Cache
from mer.data.dataset import read_crops
from mer.errors import CacheError, CheckpointError, CorpusError, TrainingError
from mer.evaluate.confidence import (
    describe_confidence,
    expected_calibration_error,
    fit_temperature,
)
from mer.evaluate.evaluation import evaluate_model
from mer.models import EfficientFace
from mer.protocols import (
    BALANCED,
    TUNED,
)
from mer.train.distillation import Distillation, compare_logits
from mer.train.runs import find_best
from mer.train.teacher import ClipTeacher
from mer.train.training import train_model
from mer.weights import shipped_checkpoint
from mer_runtime.errors import OutputError, SpecError

Write = Callable[..., Path]


def read_metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_learns_and_writes_what_it_says(cache: Path, encoder: Path, tmp_path: Path) -> None:
    rows = []
    run = tmp_path / "run"
    summary = train_model(
        cache,
        run,
        encoder=encoder,
        freeze="encoder",
        epochs=15,
        batch_size=4,
        report=rows.append,
    )
    # Eight classes: chance is 12.5.
    assert summary.best["validation_prec1"] >= 50
    assert summary.epochs == len(rows) == 15
    written = read_metrics(run)
    assert [row["epoch"] for row in written] == [str(n) for n in range(1, 16)]
    assert float(written[-1]["validation_loss"]) == rows[-1]["validation_loss"]
    assert float(written[0]["lr"]) == 0.04
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.glob("*.part*"))
    kept = json.loads((run / "run.json").read_text())
    settings = kept["settings"]
    assert settings["protocol"]["optimizer"]["kind"] == "Sgd"
    checkpoint = load_checkpoint(run / "best.safetensors")
    assert checkpoint.notes["metrics"] == find_best(rows) == summary.best
    assert checkpoint.notes["corpus"] == Cache.open(cache).digest
    assert len(checkpoint.notes["splits"]) == len(checkpoint.notes["encoder"]) == 64
    # Training scored cached features; here the file's own encoder sees the crops.
    evaluated = evaluate_model(run / "best.safetensors", cache, split="validation")
    scores = evaluated.scores
    assert scores.prec1 == summary.best["validation_prec1"]
    assert scores.loss == pytest.approx(summary.best["validation_loss"], abs=1e-4)
    # The temperatures are those of the best epoch, not of the last.
    assert list(summary.confidence) == ["both", "audio", "video"]
    for shown, confidence in summary.confidence.items():
        evaluated = evaluate_model(
            run / "best.safetensors", cache, split="validation", modality=shown
        )
        fitted = checkpoint.temperatures.of(shown)
        assert fitted == evaluated.temperature == confidence.temperature
        before = expected_calibration_error(evaluated.logits, evaluated.targets)
        assert confidence.ece_before == pytest.approx(before, abs=0.1)  # in points
        assert evaluated.ece == pytest.approx(confidence.ece, abs=0.1)
        if fitted != 1:
            temperature = fit_temperature(evaluated.logits, evaluated.targets)
            assert fitted == pytest.approx(temperature, rel=1e-3)
    told = describe_confidence(summary.confidence)
    assert kept["results"] == {"best": summary.best, "confidence": told}
    assert checkpoint.notes["confidence"] == told


@pytest.mark.parametrize(
    ("protocol", "fusion"), [("paper", "ia"), ("reference-optimiser", "it"), ("tuned", "lt")]
)
def test_every_protocol_and_every_fusion_trains(
    protocol: str, fusion: str, cache: Path, encoder: Path, tmp_path: Path
) -> None:
    heads = 1 if fusion == "ia" else 4
    summary = train_model(
        cache,
        tmp_path / "run",
        fusion=fusion,
        protocol=protocol,
        num_heads=heads,
        n_mfcc=13,
        encoder=encoder,
        freeze="encoder",
        epochs=1,
    )
    spec = load_checkpoint(summary.checkpoint).spec
    assert (spec.fusion, spec.num_heads, spec.audio.n_mfcc) == (fusion, heads, 13)


def test_live_encoder_learns_too(cache: Path, encoder: Path, tmp_path: Path) -> None:
    summary = train_model(cache, tmp_path / "run", encoder=encoder, epochs=1)
    trained = load_checkpoint(summary.checkpoint).model.visual_model.state_dict()
    before = load_encoder(encoder)
    assert not torch.equal(
        trained["stage3.0.branch1.0.weight"], before["stage3.0.branch1.0.weight"]
    )
    assert not torch.equal(trained["conv1.1.running_mean"], before["conv1.1.running_mean"])


@pytest.mark.parametrize("freeze", ["encoder", None])
def test_bf16_steps_learn_the_same(
    cache: Path, encoder: Path, tmp_path: Path, freeze: str | None
) -> None:
    """Factors of 8 bits each, sums and weights of 24: not the same figures, but near them.

    ``balanced`` shows every clip without its face, too: a frozen encoder then runs within a step.
    """
    runs = {}
    for bf16 in (False, True):
        out = tmp_path / str(bf16)
        train_model(
            cache, out, protocol="balanced", encoder=encoder, freeze=freeze, epochs=1, bf16=bf16
        )
        runs[bf16] = [float(row["train_loss"]) for row in read_metrics(out)]
        best = load_checkpoint(out / "best.safetensors")
        assert {w.dtype for w in best.model.parameters()} == {torch.float32}
        assert best.notes["bf16"] is bf16
    assert runs[True] != runs[False]
    # From the same weights, rounded to 1 / 256 at most.
    assert runs[True] == pytest.approx(runs[False], rel=1 / 64)
    with pytest.raises(TrainingError, match="bf16"):
        train_model(
            cache, out, protocol="balanced", encoder=encoder, freeze=freeze, epochs=2, resume=True
        )


@pytest.mark.parametrize("protocol", ["paper", "tuned"])
def test_frozen_encoder_stays_as_it_was(
    protocol: str, cache: Path, encoder: Path, tmp_path: Path
) -> None:
    summary = train_model(
        cache, tmp_path / "run", protocol=protocol, encoder=encoder, freeze="encoder", epochs=2
    )
    trained = load_checkpoint(summary.checkpoint).model.visual_model.state_dict()
    for name, weight in load_encoder(encoder).items():
        assert torch.equal(trained[name], weight), name
    # A checkpoint of ours is an encoder file as well.
    assert load_encoder(summary.checkpoint).keys() == load_encoder(encoder).keys()


def test_seed_matters(cache: Path, encoder: Path, tmp_path: Path) -> None:
    options = {"encoder": encoder, "freeze": "encoder", "epochs": 1}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_model(cache, tmp_path / name, seed=seed, **options)
    assert read_metrics(tmp_path / "a") == read_metrics(tmp_path / "b")
    assert read_metrics(tmp_path / "a") != read_metrics(tmp_path / "c")


def test_loss_that_is_not_finite_names_the_epoch(
    cache: Path, encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"not finite in epoch [12], batch \d+"):
        train_model(
            cache,
            tmp_path / "run",
            encoder=encoder,
            freeze="encoder",
            learning_rate=1e30,
            epochs=2,
        )
    assert not list((tmp_path / "run").glob("*.part*"))


def test_frozen_encoder_is_the_shipped_one_by_default(cache: Path, tmp_path: Path) -> None:
    summary = train_model(cache, tmp_path / "run", freeze="encoder", epochs=1)
    trained = load_checkpoint(summary.checkpoint).model.visual_model.state_dict()
    shipped = load_checkpoint(shipped_checkpoint()).model.visual_model.state_dict()
    for name in EfficientFace().state_dict():
        assert torch.equal(trained[name], shipped[name]), name


def test_voice_alone_needs_no_face_features(
    write_cache: Write, encoder: Path, tmp_path: Path
) -> None:
    stages: set[str] = set()
    train_model(
        write_cache(tmp_path / "cache"),
        tmp_path / "run",
        modality="audio",
        encoder=encoder,
        freeze="encoder",
        epochs=1,
        progress=lambda stage, done, total: stages.add(stage),
    )
    assert stages == {"training"}


def test_what_can_t_start(cache: Path, encoder: Path, tmp_path: Path, write_cache: Write) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="no protocol 'other': paper, reference-optimiser"):
        train_model(cache, run, protocol="other")
    with pytest.raises(TrainingError, match="epochs must be above 0"):
        train_model(cache, run, epochs=0)
    with pytest.raises(CheckpointError, match="no such file"):
        train_model(cache, run, encoder=tmp_path / "none.safetensors")
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="no cuda device"):
            train_model(cache, run, device="cuda")
    with pytest.raises(CorpusError, match="validation"):
        train_model(write_cache(tmp_path / "few", actors=(1, 2)), run)
    assert not run.exists()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match="can't write"):
        train_model(cache, file / "run", encoder=encoder, freeze="encoder", epochs=1)


def test_smaller_crops_come_from_the_same_cache(cache: Path, encoder: Path, tmp_path: Path) -> None:
    summary = train_model(
        cache, tmp_path / "run", size=16, face_encoder="compact", epochs=1, protocol=TUNED
    )
    spec = load_checkpoint(summary.checkpoint).spec
    assert spec.video.size == 16
    data = Cache.open(cache)
    crops = read_crops(data, 0, spec)
    assert crops.shape == (3, 16, 16, 3)
    means = data.crops(0).reshape(3, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(crops - means).max() <= 0.5  # averaged over areas, rounded
    with pytest.raises(CacheError, match=r"video\.size is 32, not 64"):
        train_model(cache, tmp_path / "larger", size=64, encoder=encoder, epochs=1)


def test_mfcc_settings_can_be_asked_for(cache: Path, tmp_path: Path) -> None:
    summary = train_model(
        cache, tmp_path / "run", modality="audio", face_encoder="compact", epochs=1,
        protocol=TUNED, n_mfcc=13, n_fft=1024, hop_length=256, n_mels=40,
    )  # fmt: skip
    audio = load_checkpoint(summary.checkpoint).spec.audio
    assert (audio.n_mfcc, audio.n_fft, audio.hop_length, audio.n_mels) == (13, 1024, 256, 40)
    assert len(audio.mean) == 13
    with pytest.raises(SpecError, match="n_mfcc must be a whole number from 1 to 40"):
        train_model(cache, tmp_path / "wrong", n_mfcc=41, n_mels=40)


def test_fine_tuning_starts_from_a_checkpoint(
    cache: Path,
    encoder: Path,
    tmp_path: Path,
    write_cache: Write,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = train_model(
        cache, tmp_path / "first", encoder=encoder, freeze="encoder", epochs=2, protocol=TUNED
    )
    before = load_checkpoint(first.checkpoint).model.state_dict()
    still = dataclasses.replace(TUNED, learning_rate=1e-12, weight_decay=0.0, ema_decay=None)
    with caplog.at_level("INFO", logger="mer"):
        second = train_model(
            cache, tmp_path / "second", start=first.checkpoint, freeze="encoder", epochs=1,
            protocol=still, seed=9,
        )  # fmt: skip
    assert f"the encoder is frozen, from {first.checkpoint}" in caplog.text
    after = load_checkpoint(second.checkpoint).model.state_dict()
    for name, weight in before.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(after[name], weight, msg=name)
    third = train_model(
        cache, tmp_path / "third", start=first.checkpoint, encoder="ia", freeze="encoder",
        epochs=1, protocol=still,
    )  # fmt: skip
    after = load_checkpoint(third.checkpoint).model.state_dict()
    for name, weight in load_encoder(shipped_checkpoint("ia")).items():
        if "tracked" not in name:
            torch.testing.assert_close(after[f"visual_model.{name}"], weight, msg=name)
    for name in ("audio_model.conv1d_0.0.weight", "av1.q.weight", "classifier_1.0.weight"):
        torch.testing.assert_close(after[name], before[name], msg=name)
    first_layer = "visual_model.conv1.0.weight"
    assert not torch.equal(after[first_layer], before[first_layer])
    with pytest.raises(TrainingError, match="fusion ia, not lt"):
        train_model(cache, tmp_path / "x", fusion="lt", start=first.checkpoint, epochs=1)


def test_student_learns_from_a_teacher(cache: Path, encoder: Path, tmp_path: Path) -> None:
    """The loss is the teacher's alone: the student comes to answer as it does."""
    first = train_model(
        cache, tmp_path / "teacher", encoder=encoder, freeze="encoder", protocol=BALANCED
    )
    plan = dataclasses.replace(BALANCED, epochs=5, batch_size=8, ema_decay=None)
    runs = {
        share: train_model(
            cache, tmp_path / f"student-{share}", face_encoder="compact", protocol=plan,
            teacher=first.checkpoint, distillation=Distillation(logits=share),
        )
        for share in (0.0, 1.0)
    }  # fmt: skip
    settings = json.loads((tmp_path / "student-1.0" / "run.json").read_text())["settings"]
    assert settings["distillation"] == {"logits": 1.0, "features": 1.0, "temperature": 2.0}
    data = Cache.open(cache)
    rows = data.select("train")

    def ask(checkpoint: Path) -> torch.Tensor:
        found = load_checkpoint(checkpoint)
        teacher = ClipTeacher(found, data, data.spec, "cpu")
        teacher.prepare(rows, [FaceView()])
        return teacher.logits([Example(row) for row in rows])

    wanted = ask(first.checkpoint)
    missed = {
        share: compare_logits(ask(run.checkpoint), wanted, 2.0).item()
        for share, run in runs.items()
    }
    assert missed[1.0] < missed[0.0]
