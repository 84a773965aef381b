"""``mer-pretrain`` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from mer.checkpoint import load_checkpoint, load_encoder
from mer.cli.pretrain import main
from mer.cli.train import main as train
from mer.models import ENCODERS, FUSIONS
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


ENCODER = """
from torch import nn

from mer import MultimodalNet

class Small(nn.Module):
    feature_width = 4

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)

    def features(self, crops):
        return self.first(crops).relu().mean(dim=(2, 3))

class Fusion(MultimodalNet):
    pass
"""


def test_encoder_of_ones_own(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_cache: Callable[..., Path],
) -> None:
    """And mer-train starts from it; a network that has one teaches another."""
    monkeypatch.setattr(
        "mer.cli.pretrain.PretrainingRecipe", lambda: PretrainingRecipe(batch_size=32)
    )
    file = tmp_path / "mine.py"
    file.write_text(ENCODER)
    own = ("--model", f"{file}:Small")
    recipe = (photos, "--epochs", 1, "--size", 32)
    out = tmp_path / "run"
    refused = run(*recipe, "--out", out, "--model", f"{file}:Fusion")
    assert refused.exit_code == 2
    assert "Fusion is a fusion, and none is trained here" in refused.stderr
    assert run(*recipe, "--out", out, "--face-encoder", "compact", *own).exit_code == 2
    done = run(*recipe, "--out", out, *own)
    assert done.exit_code == 0, done.output
    weights = load_encoder(out / "encoder.safetensors", "mine.py:Small")
    assert set(weights) == {"first.weight", "first.bias"}
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["face_encoder"] == {"name": "mine.py:Small", "sha256": hash_file(file)}
    taught = run(
        *recipe, "--out", tmp_path / "taught", "--face-encoder", "compact", *own,
        "--teacher", out / "encoder.safetensors",
    )  # fmt: skip
    assert taught.exit_code == 0, taught.output
    assert load_encoder(tmp_path / "taught" / "encoder.safetensors", "compact")
    trained = CliRunner().invoke(train, list(map(str, (
        write_cache(tmp_path / "cache", actors=(1, 11)), "--fusion", "ia", *own, "--epochs", 1,
        "--encoder", out / "encoder.safetensors", "--freeze", "encoder",
        "--out", tmp_path / "fused",
    ))))  # fmt: skip
    assert trained.exit_code == 0, trained.output
    fused = load_checkpoint(tmp_path / "fused" / "best.safetensors").model.state_dict()
    assert torch.equal(fused["visual_model.first.weight"], weights["first.weight"])
    file.write_text(ENCODER.replace("stride=2", "stride=3"))
    changed = run(*recipe, "--out", out, "--resume", *own)
    assert changed.exit_code == 1
    assert "holds a run with face_encoder.sha256" in changed.stderr
    for table in (FUSIONS, ENCODERS):
        for name in [name for name in table if name.startswith("mine.py:")]:
            del table[name]
    unknown = run(
        *recipe, "--out", tmp_path / "x", "--face-encoder", "compact",
        "--teacher", out / "encoder.safetensors",
    )  # fmt: skip
    assert unknown.exit_code == 1
    assert "name its file with --model mine.py:Small" in unknown.stderr


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
