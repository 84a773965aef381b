"""``mer-eval`` as a user meets it."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from mer import save_checkpoint
from mer.cli.evaluate import main
from mer.data.cache import Cache
from mer.models import build_model
from mer_runtime.spec import Spec

Write = Callable[..., Path]


def small_spec(cache: Path) -> Spec:
    """Of a model for the cache, with the encoder that takes less time."""
    return dataclasses.replace(Cache.open(cache).spec, encoder="compact")


@pytest.fixture(scope="module")
def model(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    spec = small_spec(cache)
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
    spec = small_spec(cache)
    torch.manual_seed(3)  # answers otherwise than the first
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


def save_with_labels(cache: Path, labels: tuple[str, ...], file: Path) -> Path:
    spec = dataclasses.replace(small_spec(cache), labels=labels)
    torch.manual_seed(0)
    save_checkpoint(file, build_model(spec), spec)
    return file


@pytest.mark.parametrize(
    ("more", "message"),
    [((), "which the model doesn't know"), (("ninth",), "can't be compared clip by clip")],
)
def test_models_of_other_labels_are_not_paired(
    model: Path, cache: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    labels = (*Cache.open(cache).spec.labels, *more) if more else tuple("abcdefgh")
    other = save_with_labels(cache, labels, tmp_path / "own.safetensors")
    result = run(model, cache, "--against", other)
    assert result.exit_code == 1
    assert message in result.stderr


def test_classes_are_paired_by_name(cache: Path, tmp_path: Path) -> None:
    labels = Cache.open(cache).spec.labels
    one = save_with_labels(cache, labels, tmp_path / "one.safetensors")
    other = save_with_labels(cache, labels[::-1], tmp_path / "other.safetensors")
    data = json.loads(run(one, cache, "--against", other, "--json", "--split", "all").stdout)
    # The same weights with the names turned round: no clip gets the same name twice.
    assert data["agreement"] == 0
    assert data["max_logit_difference"] > 0


def test_noise_is_said(model: Path, cache: Path) -> None:
    result = run(model, cache, "--voice", "noise", "--modality", "audio", "--face", "present")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1] == (
        "8 clips, split test, modality both, noise for the voice"
    )


def test_shipped_names(cache: Path) -> None:
    """The shipped model doesn't suit a cache of tiny crops: it was found, and says so."""
    result = run("lt", cache)
    assert result.exit_code == 1
    assert "video.size" in result.stderr


@pytest.fixture
def clips(make_clip: Write, portrait: np.ndarray) -> Path:
    """A folder of two clips, one that is none, and one that the table doesn't name."""
    folder = make_clip("face.mp4", picture=portrait, size=(160, 160)).parent
    make_clip("voice.wav")
    make_clip("more.wav")
    (folder / "broken.mp4").write_text("not a clip")
    table = "file,label\nface.mp4,happy\nvoice.wav,sad\nbroken.mp4,calm\n"
    (folder / "labels.csv").write_text(table)
    return folder


def test_own_clips(model: Path, other: Path, clips: Path, tmp_path: Path) -> None:
    table = clips / "labels.csv"
    result = run(model, clips, "--truth", table, "--against", other)
    assert result.exit_code == 1, result.output  # one clip can't be read
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["file", "label", "answer", "prob.", "place"]
    assert lines[1].startswith("face.mp4   happy ")
    assert lines[2].startswith("voice.wav  sad ")
    assert lines[2].endswith("(no face)")
    assert lines[5].startswith(f"2 clips, of {clips}, modality both")
    assert "same answer in" in result.stdout
    told = result.stderr.splitlines()
    assert sum("broken.mp4 is not scored: " in line for line in told) == 1
    assert sum(f"1 media files in {clips} are not in {table}" in line for line in told) == 1
    picture = tmp_path / "confusion.png"
    args = ("--truth", table, "--labels", ",".join("abcdefgh"), "--json")
    (clips / "labels.csv").write_text("file,label\nface.mp4,B\nvoice.wav,c\n")
    named = run(model, clips, *args, "--confusion", picture, "--modality", "audio")
    assert named.exit_code == 0, named.output
    data = json.loads(named.stdout)
    assert data["labels"] == list("abcdefgh")
    assert [clip["label"] for clip in data["clips"]] == ["b", "c"]
    assert (data["n"], data["failures"], data["unlisted"]) == (2, [], 2)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_own_clips_that_can_t_be_scored(model: Path, cache: Path, clips: Path) -> None:
    table = clips / "labels.csv"
    for args, code, message in [
        ((clips, "--truth", clips / "none.csv"), 1, "can't be read as a CSV file"),
        ((clips,), 1, "--truth TABLE.csv"),
        ((clips, "--truth", table, "--split", "test"), 2, "--split is of a cache's actors"),
        ((cache, "--face-detector", table), 2, "a cache has crops"),
        ((clips, "--truth", table, "--face-detector", table), 1, "not a YuNet"),
    ]:
        result = run(model, *args)
        assert result.exit_code == code, (args, result.output)
        assert message in result.stderr
        assert result.stdout == ""


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


def test_errors_are_one_line(model: Path, cache: Path, wrong_bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "model.pt"
    text.write_text("not a checkpoint")
    empty = tmp_path / "empty.pt"
    empty.touch()
    cases = [
        ((tmp_path / "none", cache), "no such file"),
        ((text, cache), "not a PyTorch checkpoint"),
        ((empty, cache), "empty"),
        ((tmp_path, cache), "not a bundle"),
        ((wrong_bundle, cache), "off its golden answers"),
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
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.slow
def test_several_models_in_one_table(model: Path, other: Path, cache: Path, tmp_path: Path) -> None:
    table, plot = tmp_path / "out.csv", tmp_path / "out.svg"
    asked = (model, other, cache, "--split", "all")
    result = run(*asked, "--table", table, "--plot", plot, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    first, second = told["models"]
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [row["model"] for row in rows] == [str(model), str(other)]
    assert float(rows[1]["prec1, %"]) == pytest.approx(second["prec1"], abs=1e-4)
    assert float(rows[1]["prec1, % low"]) == pytest.approx(
        second["intervals"]["prec1"][0], abs=1e-4
    )
    assert float(rows[1]["Δprec1"]) == pytest.approx(second["prec1"] - first["prec1"], abs=1e-3)
    assert float(rows[1]["p"]) == pytest.approx(told["paired"][0]["mcnemar_p"], abs=1e-6)
    assert float(rows[0]["MB"]) == model.stat().st_size / 1e6
    assert float(rows[0]["ms a window"]) > 0
    assert float(rows[0]["happy"]) == pytest.approx(first["per_class"]["happy"]["recall"])
    assert "<svg" in plot.read_text("utf-8")
    assert str(other) in plot.read_text("utf-8")
    text = run(*asked).stdout
    assert text.startswith("**Accuracy**")
    assert f"Paired with {model}" in text


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--table", "out.xlsx"), 1, "ends with .md, .csv, .tex"),
        (("--plot", "out.pdf"), 1, "ends with .png or .svg"),
        (("--confusion", "out.png"), 2, "--table pairs several"),
    ],
)
def test_tables_that_cannot_be(
    model: Path, cache: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    result = run(model, model, cache, *options)
    assert result.exit_code == code
    assert words in result.stderr
