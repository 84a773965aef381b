"""Training on one modality alone, the other missing in every clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mer.checkpoint import load_checkpoint
from mer.data.augmentation import draw_examples
from mer.evaluate.evaluation import evaluate_model
from mer.protocols import BALANCED, PAPER, REFERENCE, TUNED, restrict_protocol
from mer.train.training import train_model

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Write) -> Path:
    return write_cache(tmp_path_factory.mktemp("data") / "cache")


@pytest.mark.parametrize("protocol", [PAPER, REFERENCE, TUNED, BALANCED])
def test_every_example_has_one_modality(protocol: object) -> None:
    for modality, voice, light in (("audio", 1.0, 0.0), ("video", 0.0, 1.0)):
        restricted = restrict_protocol(protocol, modality)
        assert restricted.modality == modality
        examples = draw_examples(range(100), restricted, np.random.default_rng(1))
        assert {(one.voice, one.face.light) for one in examples} == {(voice, light)}
    assert restrict_protocol(protocol, "both") is protocol
    assert protocol.modality == "both"


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_validates_what_it_trains(modality: str, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train_model(
        # With the shipped encoder, whose features tell a face from none.
        cache,
        run,
        modality=modality,
        freeze="encoder",
        epochs=3,
        batch_size=4,
    )
    same, other = (
        evaluate_model(run / "best.safetensors", cache, split="validation", modality=one)
        for one in (modality, "both")
    )
    # Cached features against live ones, both float32.
    assert same.scores.loss == pytest.approx(summary.best["validation_loss"], abs=1e-4)
    # The other modality moves answers by far more than rounding does.
    assert np.abs(other.logits - same.logits).max() > 1e-3
    # A branch that sees one and the same input has no statistics to learn.
    model = load_checkpoint(run / "best.safetensors").model
    constant, seen = model.visual_model.conv1d_0, model.audio_model.conv1d_0
    if modality == "video":
        constant, seen = seen, constant
    assert torch.equal(constant[1].running_var, torch.ones(64))
    assert not torch.equal(seen[1].running_var, torch.ones(64))
    missing = json.loads((run / "run.json").read_text())["settings"]["protocol"]["missing"]
    assert (missing["voice"], missing["face"]) == ((0, 1) if modality == "audio" else (1, 0))
