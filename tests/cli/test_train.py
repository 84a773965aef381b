"""``mer-train`` as a user meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from mer import load_checkpoint
from mer.cli.evaluate import main as evaluate
from mer.cli.prepare import main as prepare
from mer.cli.train import main
from mer.data.splits import load_splits
from mer.models import EfficientFace

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_file(EfficientFace().state_dict(), path)
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for text in (
        "Example:",
        "mer-train cache/ravdess --fusion ia",
        "--resume",
        "reference",
        "ia",
    ):
        assert text in result.stdout


def test_installed_command() -> None:
    command = shutil.which("mer-train", path=str(Path(sys.executable).parent))
    assert command
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: mer-train")


def test_trains_and_resumes(cache: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    frozen = ("--encoder", encoder, "--freeze", "encoder")
    first = run(cache, "--fusion", "lt", "--num-heads", 2, "--out", out, "--epochs", 1, *frozen)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("best of 1 epochs is 1: validation prec1 ")
    assert "\ntemperature: both " in first.stdout
    assert str(out / "best.safetensors") in first.stdout
    assert load_checkpoint(out / "best.safetensors").spec.num_heads == 2
    again = (cache, "--fusion", "lt", "--num-heads", 2, "--out", out, "--epochs", 2, *frozen)
    refused = run(*again)
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "already holds a run" in refused.stderr
    resumed = run(*again, "--resume", "--json")
    assert resumed.exit_code == 0, resumed.output
    data = json.loads(resumed.stdout)
    assert data["epochs"] == 2
    assert set(data["best"]) >= {"epoch", "validation_loss", "validation_prec1"}
    assert data["confidence"]["both"]["temperature"] > 0
    assert len((out / "metrics.csv").read_text().splitlines()) == 3
    other = run(cache, "--fusion", "ia", "--out", out, "--resume", *frozen)
    assert other.exit_code == 1
    assert "fusion lt, not ia" in other.stderr


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("cache",),
        ("cache", "--out", "run"),
        ("cache", "--out", "run", "--fusion", "mean"),
        ("cache", "--out", "run", "--fusion", "ia", "--epochs", "0"),
        ("cache", "--out", "run", "--fusion", "ia", "--num-heads", "3"),
        ("cache", "--out", "run", "--fusion", "ia", "--protocol", "best"),
        ("cache", "--out", "run", "--fusion", "ia", "--fold", "6"),
        ("cache", "--out", "run", "--fusion", "ia", "--fold", "0,1"),
        ("cache", "--out", "run", "--fusion", "ia", "--fold", "2,2"),
        ("cache", "--out", "run", "--fusion", "ia", "--fold", "every"),
        ("cache", "--out", "run", "--fusion", "ia", "--freeze", "voice"),
    ],
)
def test_usage_errors(args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_folds_and_seeds(write_cache: Write, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "run"
    write_cache(cache, actors=[min(fold) for fold in load_splits().folds])
    recipe = (cache, "--fusion", "ia", "--face-encoder", "compact", "--protocol", "tuned",
              "--epochs", 1)  # fmt: skip
    done = run(*recipe, "--fold", "all", "--out", out)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [f"fold {k}, seed 1" for k in range(1, 6)]
    assert lines[5].startswith("mean ± deviation of 5 folds: validation prec1 ")
    assert lines[6:] == [str(out / "folds.csv")]
    both = run(*recipe, "--fold", "1,2", "--seed", "1,2", "--out", tmp_path / "both")
    assert "\nmean ± deviation of 2 folds with 2 seeds: " in both.stdout
    assert "\ndeviation of prec1 between folds " in both.stdout
    again = run(*recipe, "--fold", "1,2", "--out", out, "--resume", "--json")
    data = json.loads(again.stdout)
    assert [(one["fold"], one["seed"]) for one in data["runs"]] == [(1, 1), (2, 1)]
    assert data["runs"][0]["checkpoint"] == str(out / "fold-1" / "best.safetensors")


def test_errors_are_one_line(cache: Path, encoder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0{ cut off")
    file = tmp_path / "file"
    file.touch()
    frozen = ("--encoder", encoder, "--freeze", "encoder", "--epochs", "1")
    cases = [
        ((tmp_path, "--out", tmp_path / "a"), "no cache"),
        ((cache, "--out", tmp_path / "c", "--encoder", broken), "truncated"),
        ((cache, "--out", tmp_path / "d", "--encoder", tmp_path / "none"), "no such file"),
        ((cache, "--out", file / "run", *frozen), "can't write"),
        (
            (cache, "--out", tmp_path / "e", "--learning-rate", "1e30", *frozen, "--epochs", "2"),
            "not finite in epoch",
        ),
    ]
    for args, message in cases:
        result = run(*args, "--fusion", "ia")
        assert result.exit_code == 1, args
        assert isinstance(result.exception, SystemExit)  # no traceback
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    assert not [path for name in "abcd" for path in (tmp_path / name).glob("*")]


@pytest.fixture
def recordings(tmp_path: Path, make_clip: Write, portrait: np.ndarray) -> Path:
    """A real corpus of six clips: actor 1 trains, 11 validates, 5 tests; two emotions."""
    rates = {3: 300, 4: 900}
    for actor in (1, 5, 11):
        (tmp_path / f"corpus/Actor_{actor:02d}").mkdir(parents=True)
        for emotion, hertz in rates.items():
            tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(24_000) / 48_000)
            make_clip(
                f"corpus/Actor_{actor:02d}/01-01-{emotion:02d}-01-01-01-{actor:02d}.mp4",
                size=(256, 256),
                seconds=0.5,
                picture=portrait,
                waveform=tone * (1 + actor / 20),
            )
    return tmp_path / "corpus"


def test_from_recordings_to_scores(recordings: Path, encoder: Path, tmp_path: Path) -> None:
    """mer-prepare, mer-train and mer-eval one after the other on video files."""
    cache, out, runner = tmp_path / "cache", tmp_path / "run", CliRunner()
    prepared = runner.invoke(prepare, [str(recordings), "--out", str(cache), "--jobs", "1"])
    assert prepared.exit_code == 0, prepared.output
    trained = run(
        cache, "--fusion", "ia", "--out", out, "--encoder", encoder, "--freeze", "encoder",
        "--epochs", 2,
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    best = str(out / "best.safetensors")
    scored = runner.invoke(evaluate, [best, str(cache), "--split", "all", "--json"])
    assert scored.exit_code == 0, scored.output
    data = json.loads(scored.stdout)
    assert data["n"] == 6
    assert [one["n"] for one in data["per_class"].values()] == [0, 0, 3, 3, 0, 0, 0, 0]
