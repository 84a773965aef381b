"""A run's folder: gone on with, never overwritten, and which epoch is its best."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from mer import load_checkpoint
from mer.errors import TrainingError
from mer.train.runs import find_best, is_better
from mer.train.training import train_model
from mer_runtime.errors import OutputError


def read_metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_resumed_run_equals_an_unbroken_one(cache: Path, encoder: Path, tmp_path: Path) -> None:
    options = {"encoder": encoder, "freeze": "encoder", "protocol": "tuned", "epochs": 4}
    train_model(cache, tmp_path / "whole", **options)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(cache, tmp_path / "broken", report=stop, **options)
    assert len(read_metrics(tmp_path / "broken")) == 2
    train_model(cache, tmp_path / "broken", resume=True, **options)
    assert read_metrics(tmp_path / "broken") == read_metrics(tmp_path / "whole")
    whole, broken = (
        load_checkpoint(tmp_path / run / "best.safetensors") for run in ("whole", "broken")
    )
    assert whole.temperatures == broken.temperatures
    assert whole.notes == broken.notes
    weights = broken.model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    # Nothing is left to do, and nothing changes.
    best = (tmp_path / "whole" / "best.safetensors").read_bytes()
    train_model(cache, tmp_path / "whole", resume=True, **options)
    assert (tmp_path / "whole" / "best.safetensors").read_bytes() == best


def test_plateau_survives_a_resume_and_more_epochs(
    cache: Path, encoder: Path, tmp_path: Path
) -> None:
    options = {"encoder": encoder, "freeze": "encoder"}
    train_model(cache, tmp_path / "whole", epochs=3, **options)
    train_model(cache, tmp_path / "longer", epochs=1, **options)
    train_model(cache, tmp_path / "longer", epochs=3, resume=True, **options)
    assert read_metrics(tmp_path / "longer") == read_metrics(tmp_path / "whole")


def test_run_that_is_there_is_not_overwritten(cache: Path, encoder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = {"encoder": encoder, "freeze": "encoder", "epochs": 1}
    train_model(cache, run, **options)
    before = (run / "best.safetensors").read_bytes()
    with pytest.raises(OutputError, match="it is the cache"):
        train_model(cache, cache / "clips" / "..", epochs=1)
    with pytest.raises(TrainingError, match="--resume"):
        train_model(cache, run, **options)
    with pytest.raises(TrainingError, match=r"seed 1, not 2"):
        train_model(cache, run, resume=True, seed=2, **options)
    with pytest.raises(TrainingError, match=r"protocol.learning_rate 0.04, not 0.1"):
        train_model(cache, run, resume=True, learning_rate=0.1, **options)
    assert (run / "best.safetensors").read_bytes() == before
    (run / "last.pt").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(TrainingError, match=r"last\.pt is damaged"):
        train_model(cache, run, resume=True, **options)


def test_best_is_highest_prec1_then_lowest_loss_then_first() -> None:
    rows = [
        {"epoch": float(n), "validation_prec1": prec1, "validation_loss": loss}
        for n, (prec1, loss) in enumerate([(50, 1.0), (60, 1.5), (60, 1.4), (60, 1.4), (55, 0.1)])
    ]
    assert find_best(rows) == rows[2]
    assert not is_better(rows[3], rows[2])
    assert find_best([]) is None


def test_best_is_the_highest_average_of_what_was_validated() -> None:
    rows = [
        {"validation_prec1": both, "validation_audio_prec1": voice, "validation_video_prec1": face}
        | {"validation_loss": 1.0}
        for both, voice, face in ((70, 40, 40), (68, 50, 45), (69, 44, 46))
    ]
    assert find_best(rows) == rows[1]
