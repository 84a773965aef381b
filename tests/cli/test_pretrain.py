"""``mer-pretrain`` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mer.checkpoint import load_encoder
from mer.cli.pretrain import main
from mer.train.photo_learner import PretrainingRecipe
from mer_runtime.files import hash_file


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many photos as make one of the default batches, and a few to test on."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for half, count in (("train", 40), ("test", 4)):
        for label in ("happy", "sad"):
            (root / half / label).mkdir(parents=True)
            for i in range(count):
                picture = generator.integers(0, 256, (48, 48), np.uint8)
                cv2.imwrite(str(root / half / label / f"{i}.png"), picture)
    return root


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for text in ("Example:", "mer-pretrain fer2013.zip --out runs/encoder", "--resume"):
        assert text in result.stdout


def test_trains_and_resumes(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_cache: Callable[..., Path],
) -> None:
    small = PretrainingRecipe(batch_size=32)
    monkeypatch.setattr("mer.cli.pretrain.PretrainingRecipe", lambda: small)
    out = tmp_path / "run"
    first = run(photos, "--out", out, "--epochs", 1, "--size", 32)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("1 epochs: test prec1 ")
    assert load_encoder(out / "encoder.safetensors")
    refused = run(photos, "--out", out, "--epochs", 1, "--size", 32)
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr
    resumed = run(photos, "--out", out, "--epochs", 1, "--size", 32, "--resume", "--json")
    assert resumed.exit_code == 0, resumed.output
    data = json.loads(resumed.stdout)
    assert data["encoder"] == str(out / "encoder.safetensors")
    assert data["metrics"]["epoch"] == 1
    student = tmp_path / "student"
    taught = run(
        photos, "--out", student, "--epochs", 1, "--size", 32, "--face-encoder", "compact",
        "--teacher", out / "encoder.safetensors",
    )  # fmt: skip
    assert taught.exit_code == 0, taught.output
    assert load_encoder(student / "encoder.safetensors", "compact")
    more = tmp_path / "more"
    gone_on = run(
        photos, "--out", more, "--epochs", 2, "--size", 48, "--small-size", 32, "--augment", 0.3,
        "--face-encoder", "compact", "--from", student / "encoder.safetensors",
        "--clips", write_cache(tmp_path / "cache"), "--classes", "happy,sad=calm+sad",
        "--balance", 1,
    )  # fmt: skip
    assert gone_on.exit_code == 0, gone_on.output
    described = json.loads((more / "run.json").read_text())["settings"]
    assert described["start"] == hash_file(student / "encoder.safetensors")
    assert described["recipe"]["augmentation"]["angle"] == pytest.approx(6)
    assert described["recipe"]["small_size"] == 32
    assert described["recipe"]["balance"] == 1
    assert described["classes"] == {"happy": ["happy"], "sad": ["calm", "sad"]}


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("photos",),
        ("photos", "--out", "run", "--epochs", "0"),
        ("photos", "--out", "run", "--classes", "happy"),  # of no clips
    ],
)
def test_usage_errors(args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_errors_are_one_line(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    cases = [
        ((tmp_path / "none", "--out", tmp_path / "a"), "neither a folder nor a zip file"),
        ((tmp_path, "--out", tmp_path / "b"), "no photos"),
        ((photos, "--out", file / "run"), "can't write"),
        ((photos, "--out", tmp_path / "c", "--teacher", tmp_path / "none"), "no such file"),
    ]
    for args, message in cases:
        result = run(*args)
        assert result.exit_code == 1, (args, result.output)
        assert isinstance(result.exception, SystemExit), result.exception  # no traceback
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "a").exists()
