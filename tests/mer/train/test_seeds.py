import csv
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from mer import train_model, train_seeds
from mer.errors import TrainingError
from mer_runtime.errors import MissingExtraError


@pytest.fixture(scope="module")
def cache(write_cache: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(tmp_path_factory.mktemp("seeds") / "cache", actors=(1, 11))


def test_several_seeds(cache: Path, tmp_path: Path) -> None:
    told = []
    recipe = {"face_encoder": "compact", "protocol": "tuned", "epochs": 1}
    summary = train_seeds(
        str(cache), str(tmp_path), [1, 4], report=lambda seed, row: told.append(seed), **recipe
    )
    assert told == [1, 4]
    alone = train_model(cache, tmp_path / "alone", seed=4, **recipe)
    assert summary.runs[4].best == alone.best
    scores = [run.best["validation_loss"] for run in summary.runs.values()]
    assert scores[0] != scores[1]
    assert summary.mean["validation_loss"] == statistics.mean(scores)
    assert summary.deviation["validation_loss"] == statistics.stdev(scores)
    rows = list(csv.DictReader(summary.table.read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["1", "4"]
    assert [float(row["validation_loss"]) for row in rows] == scores
    assert (tmp_path / "seed-4" / "best.safetensors").is_file()


@pytest.mark.parametrize("seeds", [[1], [2, 2]])
def test_seeds_that_differ(cache: Path, tmp_path: Path, seeds: list[int]) -> None:
    with pytest.raises(TrainingError, match="two or more that differ"):
        train_seeds(cache, tmp_path, seeds)


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is here")
def test_a_log_without_its_package(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"tensorboard: .* 'mer-edge\[tensorboard\]'"):
        train_model(cache, tmp_path / "run", log="tensorboard")
    assert not (tmp_path / "run").exists()


def test_a_log_for_tensorboard(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = {"face_encoder": "compact", "protocol": "tuned", "epochs": 2}
    summary = train_model(cache, tmp_path / "run", log="tensorboard", **recipe)
    found = EventAccumulator(str(tmp_path / "run")).Reload()
    (best,) = [
        event.value
        for event in found.Scalars("validation/prec1")
        if event.step == summary.best["epoch"]
    ]
    assert best == pytest.approx(summary.best["validation_prec1"])
    assert (tmp_path / "run" / "metrics.csv").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"distillation": object()}, "distillation needs a teacher"),
        ({"log": "paper"}, "no log 'paper': take tensorboard"),
    ],
)
def test_what_doesn_t_go_together(
    cache: Path, tmp_path: Path, given: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        train_model(cache, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
