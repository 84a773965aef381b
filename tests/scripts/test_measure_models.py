"""Runs to docs/models.json, logs, pictures and tables."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from mer.data.cache import Cache
from mer.errors import CacheError
from mer.evaluate.evaluation import evaluate_model

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Callable[..., Path]) -> Path:
    return write_cache(tmp_path_factory.mktemp("data") / "cache")


@pytest.fixture(scope="module")
def runs(load_script: Load, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one epoch; fold 5 tests on actor 1, the only one of it that the cache has."""
    out = tmp_path_factory.mktemp("runs")
    args = [cache, "--out", out, "--epochs", 1]
    for name in ("balanced-it", "voice-only", "fold-5"):
        args += ["--only", name]
    result = CliRunner().invoke(load_script("train_table").main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return out


def test_runs_are_measured_and_shown(
    load_script: Load, runs: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("measure_models")
    monkeypatch.setattr(script, "SHIPPED", ())  # what ships doesn't suit crops of 32 x 32
    docs = tmp_path / "docs"
    docs.mkdir()
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: models -->\n<!-- end: models -->\n")
    args = [str(runs), str(cache), "--root", str(tmp_path)]
    result = CliRunner().invoke(script.main, args)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        "not finished, so not in the tables: balanced-ia, balanced-lt, "
    )
    rows = {row["name"]: row for row in json.loads((docs / "models.json").read_text())["rows"]}
    assert list(rows) == ["balanced-it", "voice-only", "fold-5"]
    assert list(rows["balanced-it"]["scores"]) == list(script.FEEDS)
    assert list(rows["voice-only"]["scores"]) == ["voice"]
    assert (rows["fold-5"]["fold"], rows["fold-5"]["protocol"]) == (5, "balanced")
    best = runs / "balanced-it" / "best.safetensors"
    for feed, options in (("both", {}), ("face-voice-noise", {"voice": "noise"})):
        found = evaluate_model(best, cache, **options).to_dict()
        kept = rows["balanced-it"]["scores"][feed]
        assert kept["confusion"] == found["confusion"]
        assert kept["loss"] == pytest.approx(found["loss"], abs=2e-5)  # kept features, float32
    table = f"{rows['balanced-it']['scores']['both']['prec1']:.2f} ("
    assert table in readme.read_text()
    with (docs / "training" / "fold-5.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    pictures = {path.name for path in (docs / "training").glob("*.png")}
    assert pictures == {"balanced.png", "folds.png", "single-modality.png"}
    # What was measured isn't measured again; a checkpoint that changed is.
    measured: list[str] = []
    measure = script.measure_checkpoint

    def count(path: Path, *rest: object) -> object:
        measured.append(path.parent.name)
        return measure(path, *rest)

    monkeypatch.setattr(script, "measure_checkpoint", count)
    before = (docs / "models.json").read_text()
    best.write_bytes((runs / "fold-5" / "best.safetensors").read_bytes())
    assert CliRunner().invoke(script.main, args).exit_code == 0
    assert measured == ["balanced-it"]
    assert (docs / "models.json").read_text() != before
    # A run that isn't there any more keeps its rows.
    (tmp_path / "none").mkdir()
    args[0] = str(tmp_path / "none")
    assert CliRunner().invoke(script.main, args).exit_code == 0
    rows = {row["name"]: row for row in json.loads((docs / "models.json").read_text())["rows"]}
    assert set(rows) == {"balanced-it", "voice-only", "fold-5"}


def test_cache_that_suits(load_script: Load, cache: Path, tmp_path: Path) -> None:
    choose = load_script("measure_models").choose_cache
    spec = Cache.open(cache).spec
    shutil.copytree(cache, tmp_path / "other")
    assert choose([cache, tmp_path / "other"], spec) == cache
    with pytest.raises(CacheError):
        choose([cache], dataclasses.replace(spec, video=dataclasses.replace(spec.video, size=64)))
