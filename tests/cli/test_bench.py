"""``mer-bench`` as a user types it: real contenders in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from refusals import check_refusal

from mer_bench.command import main
from mer_bench.subject import MEASURES, STAGES

LeanPython = Callable[..., Any]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def measured(
    fitted: tuple[Path, Path],
    proved: Any,
    tmp_path_factory: pytest.TempPathFactory,
    small_clip: Path,
) -> tuple[Any, dict[str, Any], str]:
    """(command's result, its JSON, its HTML): a small reference and its int8 bundle."""
    folder = tmp_path_factory.mktemp("bench")
    checkpoint, cache = fitted
    out, page = folder / "out.json", folder / "out.html"
    options = [checkpoint, "--clip", small_clip, "--cache", cache]
    options += ["--threads", 1, "--seconds", 0.1, "--json-out", out, "--html", page]
    options += ["--table", folder / "out.md", "--plot", folder / "out.png"]
    result = run(proved.bundle, *options)
    assert result.exit_code == 0, result.output
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    table = (folder / "out.md").read_text("utf-8")
    found = json.loads(out.read_text())
    for one in found["contenders"]:
        window = one["single_stream"]["summary"]["window"]["median_interval"]["median"]
        assert f"| {one['name']} | {one['engine']} |" in table
        assert f" {window:.1f} (" in table
        assert f"{one['accuracy']['prec1']:.2f} (" in table
    for title in ("Size and time", "Accuracy", "Recall by class, %"):
        assert f"**{title}**" in table
    return result, found, page.read_text()


def test_every_figure_is_there(measured: tuple[Any, dict[str, Any], str]) -> None:
    _, found, _ = measured
    reference, bundle = found["contenders"]
    assert (reference["kind"], bundle["kind"]) == ("reference", "bundle")
    assert reference["engine"].startswith("torch ")
    assert bundle["engine"].startswith("onnxruntime ")
    for one in (reference, bundle):
        stream = one["single_stream"]
        assert set(stream["summary"]) == set(MEASURES)
        turns = stream["times"]["total"]
        counted = sum(map(len, turns))
        assert counted == stream["summary"]["total"]["n"] >= 12
        assert "p99" in stream["summary"]["total"]["unreliable"]
        alone = sum(stream["summary"][stage]["mean"] for stage in ("encoder", "head"))
        assert stream["summary"]["window"]["mean"] == pytest.approx(alone, abs=2e-3)  # rounding
        assert all(stream["summary"][stage]["mean"] > 0 for stage in STAGES)
        assert one["start"]["first_ms"] > 0
        assert len(one["start"]["later_ms"]) == found["settings"]["starts"]
        assert max(one["start"]["load_ms"]) < max(one["start"]["later_ms"])
        assert 30 < one["peak_memory_mb"] < 4000
        assert one["offline"]["clips_per_second"]["median"] > 0
        families = one["profile"]["families"]
        assert families["convolution"] > 0
    assert len(reference["single_stream"]["times"]["total"]) == len(turns), "turn by turn"
    assert bundle["bytes"] < 10e6
    assert {ratio["measure"] for ratio in found["ratios"]} == {"total", "window"}


def test_another_engine(proved: Any, small_clip: Path) -> None:
    pytest.importorskip("openvino")
    options = ["--clip", small_clip, "--threads", 1, "--seconds", 0.1, "--backend", "openvino"]
    result = run(proved.bundle, *options, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["settings"]["backend"] == "openvino"
    (bundle,) = found["contenders"]
    assert bundle["engine"].startswith("openvino ")
    assert not bundle["profile"], "its layers are told for its own engine alone"


def test_accuracy_is_of_the_same_clips(measured: tuple[Any, dict[str, Any], str]) -> None:
    reference, bundle = (one["accuracy"] for one in measured[1]["contenders"])
    assert reference["agreement"] == 100
    assert reference["n"] == bundle["n"] == 8  # the cache's one test actor
    assert reference["corpus"] == bundle["corpus"]
    assert bundle["agreement"] >= 75  # of an int8 bundle that passed its gate on other clips
    low, high = bundle["prec1_difference_interval"]
    assert low <= bundle["prec1_difference"] <= high


def test_text_and_report(measured: tuple[Any, dict[str, Any], str]) -> None:
    result, found, page = measured
    assert found["advice"] in result.stdout
    assert "~ too few samples" in result.stdout
    assert "against reference, total: " in result.stdout
    assert "agreement " in result.stdout
    assert "Confusion matrices" in page
    assert "slowest of" in page


def test_compare(measured: tuple[Any, dict[str, Any], str], tmp_path: Path) -> None:
    _, found, _ = measured
    (tmp_path / "a.json").write_text(json.dumps(found))
    for one in found["contenders"]:
        stream = one["single_stream"]
        for measure, turns in stream["times"].items():
            stream["times"][measure] = [[100 * time for time in turn] for turn in turns]
            stream["summary"][measure]["p50"] *= 100
    (tmp_path / "b.json").write_text(json.dumps(found))
    both = "--compare", tmp_path / "a.json", tmp_path / "b.json"
    result = run(*both)
    assert result.exit_code == 0
    assert "slower" in result.stdout
    result = run(*both, "--fail-if-slower", "10%", "--json-out", tmp_path / "c.json")
    assert result.exit_code == 3
    assert "Slower: reference takes 100" in result.stderr
    assert json.loads((tmp_path / "c.json").read_text())["differences"]
    same = run("--compare", tmp_path / "a.json", tmp_path / "a.json", "--fail-if-slower", "10")
    assert same.exit_code == 0
    told = run(*both, "--json")
    assert json.loads(told.stdout)["differences"][0]["verdict"] == "slower"
    back = run("--compare", tmp_path / "b.json", tmp_path / "a.json", "--fail-if-slower", "10%")
    assert back.exit_code == 0
    assert "faster" in back.stdout


class TestBadInput:
    """One line on standard error; nothing written."""

    def test_no_bundle(self) -> None:
        check_refusal(run(), "BUNDLE", code=2)

    def test_checkpoint_alone(self) -> None:
        check_refusal(run("ia"), "BUNDLE", code=2)

    def test_two_checkpoints(self) -> None:
        check_refusal(run("ia", "lt", "ia-int8"), "one checkpoint", code=2)
        check_refusal(run("ia", "ia-int8", "--reference", "lt"), "one checkpoint", code=2)

    def test_unknown_bundle(self) -> None:
        check_refusal(run("nowhere"), "no such bundle")

    def test_wrong_answers(self, wrong_bundle: Path, sample_clip: Path) -> None:
        check_refusal(run(wrong_bundle, "--clip", sample_clip), "off its golden answers")

    def test_missing_clip(self, bundle: Path) -> None:
        check_refusal(run(bundle, "--clip", "nowhere.mp4"), "nowhere.mp4", "--clip")

    def test_clip_that_is_none(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "x.mp4").write_text("hello")
        result = run(bundle, "--clip", tmp_path / "x.mp4", "--threads", 1)
        check_refusal(result, "ia-onnx-fp32: ", "not a media file")

    def test_too_many_threads(self, bundle: Path, sample_clip: Path) -> None:
        check_refusal(run(bundle, "--clip", sample_clip, "--threads", 4096), "cores")

    def test_output_without_a_folder(self, bundle: Path) -> None:
        check_refusal(run(bundle, "--json-out", "/nowhere/x.json"), "can't write")

    def test_missing_reference(self, bundle: Path, sample_clip: Path) -> None:
        options = "--reference", "nowhere.safetensors", "--clip", sample_clip, "--threads", 1
        check_refusal(run(bundle, *options), "reference: ", "no such file")

    def test_comparing_and_measuring(self, bundle: Path) -> None:
        check_refusal(run(bundle, "--compare", "a", "b"), "--compare", code=2)
        check_refusal(run(bundle, "--fail-if-slower", "10%"), "--compare", code=2)

    def test_percentage(self) -> None:
        check_refusal(run("--compare", "a", "b", "--fail-if-slower", "much"), "percentage", code=2)

    def test_foreign_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("{}")
        check_refusal(run("--compare", tmp_path / "a.json", tmp_path / "a.json"), "no results")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--reference", "ia", ("the reference", "torch", "train")),
        ("--cache", "cache", ("accuracy on a cache", "torch", "train")),
        ("--html", "report.html", ("the report", "matplotlib", "report")),
    ],
)
def test_on_a_device_without_extras(
    lean_python: LeanPython, bundle: Path, option: str, value: str, told: tuple[str, str, str]
) -> None:
    """What needs an extra says so before anything is measured."""
    done = lean_python("from mer_bench.command import main; main()", bundle, option, value)
    purpose, package, extra = told
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"Error: {purpose} needs the package {package}: install it with "
        f"pip install 'mer-edge[{extra}]'"
    )


def test_bundle_on_a_device(lean_python: LeanPython, bundle: Path, small_clip: Path) -> None:
    """A bundle's worker serves with the base install."""
    start = "from mer_bench.worker import main; main()"
    done = lean_python(start, "bundle", bundle, small_clip, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"].startswith("onnxruntime ")
