"""Quantisation-aware fine-tuning on a small cache: it helps where int8 hurts."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mer import load_checkpoint, save_checkpoint
from mer.data.cache import Cache
from mer.errors import CacheError, CheckpointError, TrainingError
from mer.evaluate.evaluation import evaluate_model
from mer.models import EfficientFace, build_model
from mer.protocols import PAPER, TUNED, AdamW, Cosine
from mer.train.qat import plan_tuning, tune_model
from mer.train.training import train_model
from mer_runtime.spec import Spec

Write = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the networks are tiny


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Write) -> Path:
    return write_cache(tmp_path_factory.mktemp("data") / "cache")


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was trained with a frozen encoder."""
    folder = tmp_path_factory.mktemp("trained")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        encoder = EfficientFace()
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0  # keep the last batch's statistics
        encoder(torch.rand(64, 3, 1, 1) + torch.rand(64, 3, 32, 32) / 4)
    save_file(encoder.state_dict(), folder / "encoder.safetensors")
    summary = train_model(
        cache,
        folder / "run",
        encoder=folder / "encoder.safetensors",
        freeze="encoder",
        epochs=15,
        batch_size=4,
    )
    return summary.checkpoint


@pytest.fixture(scope="module")
def hard(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function in float, but one channel of the voice is 200 times the others.

    The tensor's one scale is then that channel's, and the others lose their digits.
    """
    path = tmp_path_factory.mktemp("hard") / "hard.safetensors"
    loaded = load_checkpoint(trained)
    branch = loaded.model.audio_model
    with torch.no_grad():
        norm = branch.conv1d_0[1]
        channel = int(norm.weight.argmax())
        norm.weight[channel] *= 200
        norm.bias[channel] *= 200
        branch.conv1d_1[0].weight[:, channel] /= 200
    save_checkpoint(path, loaded.model, loaded.spec, notes=loaded.notes)
    return path


def read_settings(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())["settings"]


def read_metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_tuning_helps_where_int8_hurts(cache: Path, hard: Path, tmp_path: Path) -> None:
    rows = []
    run = tmp_path / "run"
    # SGD's steps would suffer from a channel 200 times the others; Adam's don't.
    adam = dataclasses.replace(PAPER, optimizer=AdamW())
    options = {"protocol": adam, "epochs": 6, "learning_rate": 1e-3, "batch_size": 4}
    summary = tune_model(cache, run, hard, report=rows.append, **options)
    assert summary.start == rows[0]
    exact = evaluate_model(hard, cache, split="validation").scores.loss
    harm = summary.start["validation_loss"] - exact
    assert harm > 0.2 * exact, "not hard to quantise"
    assert summary.best["validation_loss"] < 0.9 * summary.start["validation_loss"]
    # That isn't merely more training: rounding itself does less harm than before.
    exact = evaluate_model(run / "best.safetensors", cache, split="validation").scores.loss
    assert abs(summary.best["validation_loss"] - exact) < 0.5 * harm
    assert summary.best["validation_loss"] == min(row["validation_loss"] for row in rows)
    assert [row["epoch"] for row in read_metrics(run)] == [str(n) for n in range(7)]
    assert read_metrics(run)[0]["train_loss"] == ""
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert summary.epochs == 6

    # An ordinary checkpoint of floats, whose encoder and batch statistics are as they were.
    tuned, before = load_checkpoint(run / "best.safetensors"), load_checkpoint(hard)
    assert tuned.notes["qat"] == {"source": hashlib.sha256(hard.read_bytes()).hexdigest()}
    assert tuned.temperature == summary.confidence.temperature
    assert evaluate_model(run / "best.safetensors", cache).scores.n == 8
    weights, old = tuned.model.state_dict(), before.model.state_dict()
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    kept = {f"visual_model.{name}" for name in EfficientFace().state_dict()}
    for name, module in tuned.model.named_modules():
        if isinstance(module, norms):
            kept |= {f"{name}.{part}" for part in module.state_dict()}
    assert all(torch.equal(weights[name], old[name]) for name in kept)
    for layer in ("audio_model.conv1d_1.0", "visual_model.conv1d_0.0", "av1.q", "classifier_1.0"):
        assert not torch.equal(weights[f"{layer}.weight"], old[f"{layer}.weight"]), layer


def test_what_does_not_help_is_not_kept(cache: Path, trained: Path, tmp_path: Path) -> None:
    # Steps too small for float32 change nothing, and the first of equals is the checkpoint.
    summary = tune_model(cache, tmp_path / "run", trained, epochs=1, learning_rate=1e-20)
    assert summary.best == summary.start
    assert summary.best["epoch"] == 0
    tuned, before = (load_checkpoint(p).model.state_dict() for p in (summary.checkpoint, trained))
    assert all(torch.equal(weight, before[name]) for name, weight in tuned.items())


def test_choices_are_the_checkpoint_s(cache: Path, trained: Path, tmp_path: Path) -> None:
    tune_model(cache, tmp_path / "run", trained, epochs=1)
    settings, before = read_settings(tmp_path / "run"), read_settings(trained.parent)
    for name in ("fusion", "freeze", "fold", "spec", "encoder", "corpus", "splits"):
        assert settings[name] == before[name], name
    assert settings["protocol"]["name"] == "paper"
    assert settings["protocol"]["schedule"] == {"kind": "Cosine"}
    assert float(read_metrics(tmp_path / "run")[1]["lr"]) == pytest.approx(0.04 / 100)


def test_plan_is_short_and_gentle() -> None:
    plan = plan_tuning("tuned")
    assert (plan.epochs, plan.learning_rate) == (2, pytest.approx(TUNED.learning_rate / 100))
    assert (plan.schedule, plan.feature_dropout, plan.ema_decay) == (Cosine(), 0, None)
    assert plan.voice == TUNED.voice
    assert plan_tuning("tuned", learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(TrainingError, match="epochs must be above 0"):
        plan_tuning("tuned", epochs=0)


def test_live_encoder_is_tuned_too(cache: Path, trained: Path, tmp_path: Path) -> None:
    summary = tune_model(cache, tmp_path / "run", trained, freeze="none", epochs=1)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["learner"]
    assert {"visual_model.conv1.0.weight", "visual_model.local.conv4_2.weight"} <= set(
        state["ranges"]
    )
    before = load_checkpoint(trained).model.state_dict()
    moved = state["model"]
    assert not torch.equal(
        moved["visual_model.stage3.0.branch1.0.weight"],
        before["visual_model.stage3.0.branch1.0.weight"],
    )
    for part in ("weight", "running_mean"):
        name = f"visual_model.conv1.1.{part}"
        assert torch.equal(moved[name], before[name])
    assert read_settings(tmp_path / "run")["freeze"] is None
    assert summary.start is not None


def test_resumed_run_equals_an_unbroken_one(cache: Path, hard: Path, tmp_path: Path) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    tune_model(cache, tmp_path / "whole", hard, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        tune_model(cache, tmp_path / "broken", hard, epochs=3, report=stop)
    tune_model(cache, tmp_path / "broken", hard, epochs=3, resume=True)
    assert read_metrics(tmp_path / "broken") == read_metrics(tmp_path / "whole")
    whole, broken = (
        load_checkpoint(tmp_path / n / "best.safetensors") for n in ("whole", "broken")
    )
    assert (whole.notes, whole.temperature) == (broken.notes, broken.temperature)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, broken.model.state_dict()[name]), name


def test_what_contradicts_the_checkpoint(
    cache: Path, trained: Path, tmp_path: Path, write_cache: Write
) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="has fusion ia, not lt"):
        tune_model(cache, run, trained, fusion="lt")
    with pytest.raises(TrainingError, match="trained on the default split"):
        tune_model(cache, run, trained, fold=5)
    with pytest.raises(CheckpointError, match="no such file"):
        tune_model(cache, run, tmp_path / "none.safetensors")
    with pytest.raises(TrainingError, match="no protocol 'other'"):
        tune_model(cache, run, trained, protocol="other")
    save_checkpoint(tmp_path / "large.safetensors", build_model(Spec()), Spec())
    with pytest.raises(CacheError, match=r"video\.size"):
        tune_model(cache, run, tmp_path / "large.safetensors")
    assert not run.exists()


def test_run_of_another_kind_is_not_resumed(
    cache: Path, trained: Path, hard: Path, tmp_path: Path
) -> None:
    before = trained.read_bytes()
    with pytest.raises(TrainingError, match="without --qat, which one of --qat can't resume"):
        tune_model(cache, trained.parent, hard, resume=True)
    assert trained.read_bytes() == before
    run = tmp_path / "run"
    tune_model(cache, run, hard, epochs=1)
    with pytest.raises(TrainingError, match="of --qat, which one without --qat can't resume"):
        train_model(cache, run, resume=True, epochs=1)
    with pytest.raises(TrainingError, match=r"qat\.source"):
        tune_model(cache, run, trained, epochs=1, resume=True)
    with pytest.raises(TrainingError, match="already holds a run"):
        tune_model(cache, run, hard, epochs=1)


def test_foreign_checkpoint_has_no_choices(cache: Path, tmp_path: Path) -> None:
    """Without notes: the paper's protocol, a live encoder, the fold that is named."""
    spec = Cache.open(cache).spec
    save_checkpoint(tmp_path / "model.safetensors", build_model(spec), spec)
    tune_model(cache, tmp_path / "run", tmp_path / "model.safetensors", epochs=1)
    settings = read_settings(tmp_path / "run")
    assert (settings["protocol"]["name"], settings["freeze"]) == ("paper", None)
