"""``mer-eval`` as a user meets it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from mer import save_checkpoint
from mer.cache import Cache
from mer.cli.evaluate import main
from mer.models import build_model

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def model(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    spec = Cache.open(cache).spec
    torch.manual_seed(0)
    save_checkpoint(path, build_model(spec), spec)
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for text in ("Example:", "mer-eval runs/ia/best.safetensors", "--modality", "Wilson", "--json"):
        assert text in result.stdout


def test_text(model: Path, cache: Path, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    result = run(model, cache, "--confusion", picture, "--split", "validation")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"checkpoint {model}"
    assert lines[1] == "8 clips, split validation, modality both"
    for name in ("loss", "prec1", "prec5", "uar", "ece", "neutral", "surprised"):
        assert any(line.startswith(name) for line in lines), name
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]


def test_json_is_one_object(model: Path, cache: Path) -> None:
    result = run(model, cache, "--json", "--modality", "audio")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    data = json.loads(result.stdout)
    assert (data["n"], data["split"], data["modality"]) == (8, "test", "audio")
    assert data["model"] == str(model)
    assert len(data["corpus"]) == 64
    assert data["temperature"] == 1.0
    assert 0 <= data["ece"] <= 100


@pytest.fixture(scope="module")
def other(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    spec = Cache.open(cache).spec
    torch.manual_seed(1)
    save_checkpoint(path, build_model(spec), spec)
    return path


def test_two_models_clip_by_clip(model: Path, other: Path, cache: Path) -> None:
    result = run(model, cache, "--against", other, "--split", "all", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["model"] == str(model)
    assert data["against"]["model"] == str(other)
    gain = data["only_a"] - data["only_b"]
    assert data["prec1"] - data["against"]["prec1"] == pytest.approx(100 * gain / data["n"])
    assert data["prec1_difference"] == pytest.approx(100 * gain / data["n"], abs=1e-4)
    assert 0 <= data["agreement"] < 100, "two random networks always agree"
    text = run(model, cache, "--against", other, "--split", "all").stdout
    assert f"same answer in {data['agreement']:.2f} % of {data['n']} clips" in text


def test_model_against_itself_agrees(model: Path, cache: Path) -> None:
    data = json.loads(run(model, cache, "--against", model, "--json").stdout)
    assert data["agreement"] == 100
    assert data["max_logit_difference"] == 0


def test_models_of_other_labels_are_not_paired(model: Path, cache: Path, tmp_path: Path) -> None:
    spec = Cache.open(cache).spec
    spec = dataclasses.replace(spec, labels=tuple("abcdefgh"))
    save_checkpoint(tmp_path / "own.safetensors", build_model(spec), spec)
    result = run(model, cache, "--against", tmp_path / "own.safetensors")
    assert result.exit_code == 1
    assert "can't be compared clip by clip" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("model",),
        ("model", "cache", "--split", "dev"),
        ("model", "cache", "--modality", "text"),
        ("model", "cache", "--fold", "0"),
    ],
)
def test_usage_errors(args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_errors_are_one_line(model: Path, cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "model.pt"
    text.write_text("not a checkpoint")
    empty = tmp_path / "empty.pt"
    empty.touch()
    cases = [
        ((tmp_path / "none", cache), "no such file"),
        ((text, cache), "not a PyTorch checkpoint"),
        ((empty, cache), "empty"),
        ((tmp_path, cache), "not a bundle"),
        ((model, tmp_path), "no cache"),
        ((model, cache, "--labels", "sad,happy"), "8 classes"),
        ((model, cache, "--confusion", tmp_path / "none" / "out.png"), "can't write"),
        ((model, cache, "--confusion", tmp_path), "can't write"),
    ]
    for args, message in cases:
        result = run(*args)
        assert result.exit_code == 1, (args, result.output)
        assert isinstance(result.exception, SystemExit)  # no traceback
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    assert not list(tmp_path.glob("*.part"))
