"""A researcher brings a corpus, its classes and a network, each in three commands at most."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from own_fusion import FUSION

from mer.cli.evaluate import main as mer_eval
from mer.cli.prepare import main as mer_prepare
from mer.cli.train import main as mer_train
from mer.models import FUSIONS
from mer_export.cli import main as mer_export
from mer_runtime.cli import main as mer_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample_clip: Path) -> Path:
    """A table of parts of the sample clip: three people, three labels."""
    root = tmp_path_factory.mktemp("corpus")
    labels, people = ("joy", "anger", "calm"), ("anna", "ben", "carla")
    lines = ["file,label,actor,start,end"]
    for i, (person, label) in enumerate((p, label) for p in people for label in labels):
        lines.append(f"{sample_clip},{label},{person},{0.1 * i:.1f},4")
    (root / "corpus.csv").write_text("\n".join(lines) + "\n")
    (root / "my_fusion.py").write_text(FUSION)
    return root


def run(command: Any, *args: object) -> str:
    result = CliRunner().invoke(command, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_any_corpus_with_classes_of_ones_own(folder: Path) -> None:
    cache, out = folder / "cache", folder / "run"
    classes = ("--classes", "joy,other=...")
    told = json.loads(
        run(mer_prepare, folder / "corpus.csv", "--out", cache, "--size", 32, *classes, "--json")
    )
    run(mer_train, cache, "--fusion", "ia", "--face-encoder", "compact", "--epochs", 1,
        "--batch-size", 3, "--out", out)  # fmt: skip
    scored = json.loads(run(mer_eval, out / "best.safetensors", cache, "--json"))
    assert told["classes"] == {"joy": 3, "other": 6}
    assert told["splits"] == {"train": 3, "validation": 3, "test": 3}
    assert scored["labels"] == ["joy", "other"]
    assert scored["n"] == 3


def test_a_fusion_of_ones_own(folder: Path, graphs_once: None, sample_clip: Path) -> None:
    cache, out, bundle = folder / "cache-own", folder / "own", folder / "bundle"
    run(mer_prepare, folder / "corpus.csv", "--out", cache, "--size", 32)
    model = ("--model", f"{folder / 'my_fusion.py'}:MyFusion")
    run(mer_train, cache, *model, "--face-encoder", "compact", "--epochs", 1,
        "--batch-size", 3, "--out", out)  # fmt: skip
    checkpoint = out / "best.safetensors"
    run(mer_export, checkpoint, *model, "--precision", "fp32", "--out", bundle)
    answer = json.loads(run(mer_run, bundle, sample_clip, "--json"))
    assert set(answer["probabilities"]) == {"anger", "calm", "joy"}
    del FUSIONS["my_fusion.py:MyFusion"]  # as another process begins
    refused = CliRunner().invoke(mer_eval, [str(checkpoint), str(cache)])
    assert refused.exit_code == 1
    assert "checkpoints hold no code: name its file with --model" in refused.stderr


def test_several_seeds(folder: Path, write_cache: Callable[..., Path]) -> None:
    cache = write_cache(folder / "cache-seeds", actors=(1, 11))
    said = run(mer_train, cache, "--fusion", "ia", "--face-encoder", "compact", "--protocol",
               "tuned", "--epochs", 1, "--seed", "1,2", "--out", folder / "seeds")  # fmt: skip
    assert "mean ± deviation of 2 seeds: validation prec1" in said


def test_notes_of_media(
    tmp_path: Path, make_clip: Callable[..., Path], portrait: NDArray[Any]
) -> None:
    make_clip("whole.mp4", picture=portrait, size=(320, 320), fps=10)
    make_clip("late.mkv", picture=portrait, size=(320, 320), fps=10, audio_start=9.0)
    (tmp_path / "t.csv").write_text("file,label\nwhole.mp4,joy\nlate.mkv,anger\n")
    args = [str(tmp_path / "t.csv"), "--out", str(tmp_path / "cache"), "--size", "32", "--json"]
    told = CliRunner().invoke(mer_prepare, args)
    again = CliRunner().invoke(mer_prepare, args)
    for one in (told, again):
        (note,) = json.loads(one.stdout)["notes"]
        assert note["id"] == "late"
        assert note["notes"]
    assert f"late: {note['notes'][0]}" in told.stderr
