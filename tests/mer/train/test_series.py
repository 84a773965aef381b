import csv
import statistics
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from mer import Draw, evaluate_model, train_model, train_series
from mer.data.splits import load_splits
from mer.errors import CorpusError, TrainingError
from mer.train.runs import Row
from mer_export.origin import Origin
from mer_runtime.errors import MerWarning, MissingExtraError

RECIPE = {"face_encoder": "compact", "protocol": "tuned", "epochs": 1}


@pytest.fixture(scope="module")
def cache(write_cache: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cache(tmp_path_factory.mktemp("seeds") / "cache", actors=(1, 11))


@pytest.fixture(scope="module")
def folds_cache(write_cache: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An actor of each of the folds' sets."""
    path = tmp_path_factory.mktemp("folds") / "cache"
    return write_cache(path, actors=[min(fold) for fold in load_splits().folds])


def read_table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_several_seeds(cache: Path, tmp_path: Path) -> None:
    told = []
    series = train_series(
        str(cache),
        str(tmp_path),
        seeds=[1, 4],
        report=lambda draw, row: told.append(draw),
        **RECIPE,
    )
    assert told == [Draw(1), Draw(4)]
    alone = train_model(cache, tmp_path / "alone", seed=4, **RECIPE)
    assert series.runs[Draw(4)].best == alone.best
    scores = [run.best["validation_loss"] for run in series.runs.values()]
    assert scores[0] != scores[1]
    assert series.mean["validation_loss"] == statistics.mean(scores)
    assert series.deviation["validation_loss"] == statistics.stdev(scores)
    assert series.between == {}
    rows = read_table(tmp_path / "seeds.csv")
    assert [row["seed"] for row in rows] == ["1", "4"]
    assert "fold" not in rows[0]
    assert [float(row["validation_loss"]) for row in rows] == scores
    assert (tmp_path / "seed-4" / "best.safetensors").is_file()


def test_several_folds_and_seeds(folds_cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def stop(draw: Draw, row: Row) -> None:
        if draw == Draw(2, 3):
            raise KeyboardInterrupt

    given = {"seeds": [1, 2], "folds": [1, 3], **RECIPE}
    with pytest.raises(KeyboardInterrupt):
        train_series(folds_cache, out, report=stop, **given)
    assert len(read_table(out / "folds.csv")) == 3
    finished = (out / "fold-1" / "seed-2" / "best.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="already holds a run"):
        train_series(folds_cache, out, **given)
    series = train_series(folds_cache, out, resume=True, **given)
    assert (out / "fold-1" / "seed-2" / "best.safetensors").read_bytes() == finished
    assert list(series.runs) == [Draw(1, 1), Draw(2, 1), Draw(1, 3), Draw(2, 3)]
    assert series.table == out / "folds.csv"
    rows = read_table(series.table)
    assert [(row["fold"], row["seed"]) for row in rows] == [
        ("1", "1"), ("1", "2"), ("3", "1"), ("3", "2"),
    ]  # fmt: skip
    loss = [run.best["validation_loss"] for run in series.runs.values()]
    assert series.deviation["validation_loss"] == statistics.stdev(loss)
    seeds = [(loss[0] + loss[2]) / 2, (loss[1] + loss[3]) / 2]
    folds = [(loss[0] + loss[1]) / 2, (loss[2] + loss[3]) / 2]
    for kind, means in (("seeds", seeds), ("folds", folds)):
        assert series.between[kind]["validation_loss"] == pytest.approx(statistics.stdev(means))
    alone = train_model(folds_cache, tmp_path / "alone", seed=2, fold=3, **RECIPE)
    assert series.runs[Draw(2, 3)].best == alone.best


def test_a_fold_s_model_elsewhere(folds_cache: Path, tmp_path: Path) -> None:
    """It is scored and proved on actors that it hasn't seen, or there is a warning."""
    best = train_model(folds_cache, tmp_path / "run", fold=2, **RECIPE).checkpoint
    with pytest.warns(MerWarning, match=r"trained on fold 2 of this corpus.* with --fold 2"):
        evaluate_model(best, folds_cache, split="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scored = evaluate_model(best, folds_cache, fold=2)
    assert len(scored.targets) == 8
    clips = Origin(best, folds_cache).clips
    assert clips is not None
    actors = {clips.cache.rows[row].actor for row in clips.rows}
    assert actors == {min(load_splits().folds[2])}  # fold 2 validates on the third set


def test_a_fold_without_clips_is_told_before_any_is_trained(
    write_cache: Callable[..., Path], tmp_path: Path
) -> None:
    cache = write_cache(tmp_path / "cache", actors=[min(fold) for fold in load_splits().folds[:3]])
    with pytest.raises(CorpusError, match="in validation of fold 3"):
        train_series(cache, tmp_path / "run", folds=[1, 3], **RECIPE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given", [{}, {"seeds": [1]}, {"seeds": [2, 2]}, {"folds": [2, 2]}, {"folds": [3]}]
)
def test_runs_that_differ(cache: Path, tmp_path: Path, given: dict[str, list[int]]) -> None:
    with pytest.raises(TrainingError, match="two or more that differ"):
        train_series(cache, tmp_path, **given)


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
