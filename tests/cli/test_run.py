"""``mer-run`` as a user types it: in a process of its own where that matters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray
from refusals import check_refusal

import mer_runtime
from mer_runtime.cli import main

MakeClip = Callable[..., Path]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_clip_as_text(bundle: Path, sample_clip: Path) -> None:
    result = run(bundle, sample_clip)
    assert result.exit_code == 0
    assert "portrait.mp4: " in result.stdout
    assert "frames" in result.stdout
    assert "inference" in result.stdout
    assert result.stderr == ""
    assert "people in the picture" not in result.stdout


def test_clip_as_json(bundle: Path, sample_clip: Path) -> None:
    result = run(bundle, sample_clip, "--json")
    answer = json.loads(result.stdout)
    assert answer["source"] == str(sample_clip)
    assert answer["label"] in answer["probabilities"]
    assert answer["face"] is True
    assert answer["voice"] is True
    assert answer["settled"] is True
    assert "close call" not in run(bundle, sample_clip).stdout


def test_close_call_is_told(
    bundle: Path, sample_clip: Path, tmp_path: Path, resign: Callable[..., None]
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    resign(copy, lambda manifest: manifest["doubtful_margins"].update(both=1e3))
    assert json.loads(run(copy, sample_clip, "--json").stdout)["settled"] is False
    first = run(copy, sample_clip).stdout.splitlines()[0]
    assert first.endswith("  (a close call: rounding may have decided it)")


def test_folder_goes_on_after_a_bad_clip(bundle: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    folder = tmp_path / "clips" / "deeper"
    folder.mkdir(parents=True)
    make_clip("clips/a.mp4")
    (tmp_path / "clips" / "b.mp4").write_text("not a film")
    (tmp_path / "clips" / "c.mp4").touch()
    make_clip("clips/deeper/d.wav")
    (tmp_path / "clips" / "notes.txt").write_text("no clip")
    result = run(bundle, tmp_path / "clips", "--json")
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["source"]).name for line in lines] == ["a.mp4", "b.mp4", "c.mp4", "d.wav"]
    assert ["error" in line for line in lines] == [False, True, True, False]
    assert "empty" in lines[2]["error"]


def test_folder_of_good_clips_exits_with_0(
    bundle: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    make_clip("clips/a.wav")
    make_clip("clips/b.wav")
    result = run(bundle, tmp_path / "clips", "--overlay", tmp_path / "pictures")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert "(no face)" in result.stdout
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["a.png", "b.png"]


def test_self_test(bundle: Path) -> None:
    result = run(bundle, "--self-test")
    assert result.exit_code == 0
    assert "passed" in result.stdout
    report = json.loads(run(bundle, "--self-test", "--json").stdout)
    assert (report["passed"], report["fault"]) == (True, "")


def test_self_test_reports_wrong_answers(wrong_bundle: Path) -> None:
    """It isn't refused before it can."""
    result = run(wrong_bundle, "--self-test")
    assert result.exit_code == 1
    assert result.stdout.startswith("Self-test FAILED: ")
    assert "max |Δlogit| 1.00e+00" in result.stdout
    report = json.loads(run(wrong_bundle, "--self-test", "--json").stdout)
    assert (report["passed"], report["fault"]) == (False, "")


def test_self_test_reports_what_else_is_wrong(
    bundle: Path, tmp_path: Path, resign: Callable[..., None]
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    resign(copy, lambda manifest: manifest.update(temperatures=4.0))
    result = run(copy, "--self-test")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    assert line.startswith("Self-test FAILED: 12 golden inputs")
    assert line.endswith("; temperature 4 of both is not the one proved, 1")
    report = json.loads(run(copy, "--self-test", "--json").stdout)
    assert report["fault"] == "temperature 4 of both is not the one proved, 1"
    assert report["max_difference"] <= report["tolerance"]


class TestBadInput:
    """One line on standard error, exit 1; nothing written."""

    def test_text_named_mp4(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "x.mp4").write_text("hello")
        check_refusal(run(bundle, tmp_path / "x.mp4"), "x.mp4", "not a media file")

    def test_zero_bytes(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "x.mp4").touch()
        check_refusal(run(bundle, tmp_path / "x.mp4"), "empty")

    def test_missing_clip(self, bundle: Path, tmp_path: Path) -> None:
        check_refusal(run(bundle, tmp_path / "x.mp4"), "no such file")

    def test_neither_face_nor_sound(self, bundle: Path, make_clip: MakeClip) -> None:
        check_refusal(run(bundle, make_clip(audio=False)), "no face was found")

    def test_folder_without_clips(self, bundle: Path, tmp_path: Path) -> None:
        check_refusal(run(bundle, tmp_path), "no clips in this folder")

    def test_foreign_bundle(self, tmp_path: Path, sample_clip: Path) -> None:
        check_refusal(run(tmp_path, sample_clip), "not a bundle")

    def test_edited_bundle(self, bundle: Path, tmp_path: Path, sample_clip: Path) -> None:
        copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
        with (copy / "encoder.onnx").open("ab") as file:
            file.write(b"\0")
        check_refusal(run(copy, sample_clip), "hash mismatch")

    def test_wrong_answers(
        self, wrong_bundle: Path, sample_clip: Path, make_clip: MakeClip
    ) -> None:
        folder = make_clip().parent
        for options in ([sample_clip], [sample_clip, "--pace", "fast"], [folder, "--jobs", 2]):
            check_refusal(run(wrong_bundle, *options), "onnxruntime", "off its golden answers")

    def test_bad_face_detector(self, bundle: Path, sample_clip: Path, tmp_path: Path) -> None:
        check_refusal(run(bundle, sample_clip, "--face-detector", tmp_path / "x"), "face detector")

    def test_overlay_that_cannot_be_written(self, bundle: Path, sample_clip: Path) -> None:
        check_refusal(run(bundle, sample_clip, "--overlay", "/nowhere/x.png"), "can't write")

    def test_overlay_of_another_kind(self, bundle: Path, sample_clip: Path) -> None:
        check_refusal(run(bundle, sample_clip, "--overlay", "x.gif"), ".png or .mp4", code=2)

    def test_no_source(self, bundle: Path) -> None:
        check_refusal(run(bundle), "SOURCE", code=2)

    def test_source_and_self_test(self, bundle: Path, sample_clip: Path) -> None:
        check_refusal(run(bundle, sample_clip, "--self-test"), "SOURCE", code=2)


def test_shipped_bundle_by_its_name(bundle: Path, sample_clip: Path, tmp_path: Path) -> None:
    """In a copy of the package that has one, from a folder that hasn't."""
    source = Path(mer_runtime.__file__).parent
    ignored = shutil.ignore_patterns("bundles", "__pycache__")
    package = shutil.copytree(source, tmp_path / "site" / "mer_runtime", ignore=ignored)
    shutil.copytree(bundle, package / "bundles" / "small")
    start = f"import sys; sys.path.insert(0, {str(package.parent)!r})"
    code = f"{start}; from mer_runtime.cli import main; main()"

    def answer(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, name, sample_clip.resolve(), "--json"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = answer("small")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["face"] is True
    unknown = answer("large")
    assert unknown.returncode == 1
    (line,) = unknown.stderr.splitlines()
    assert line.startswith("Error: large: there is no such bundle")
    assert "ships (small)" in line


def test_process_prints_no_traceback(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("mer-run")
    done = subprocess.run([script, tmp_path, "x.mp4"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_two_people_are_told(make_clip: Callable[..., Path], portrait: NDArray[np.uint8]) -> None:
    head = portrait[:240, 100:340]
    clip = make_clip(picture=np.hstack([head, head[:, ::-1]]), size=(480, 240))
    told = run("ia-int8", clip).stdout
    assert "face in 15 of 15 frames, 2 people in the picture" in told
    assert json.loads(run("ia-int8", clip, "--json").stdout)["people"] == 2


def test_detect_size(make_clip: Callable[..., Path], portrait: NDArray[np.uint8]) -> None:
    """A face of 14 pixels: too small for 320, and for the second look."""
    far = np.full((720, 1280, 3), 110, np.uint8)
    far[100:140, 500:540] = cv2.resize(portrait[:240, 100:340], (40, 40))
    clip = make_clip(picture=far, size=(1280, 720), seconds=1.0, fps=5)
    assert json.loads(run("ia-int8", clip, "--json").stdout)["face"] is False
    closer = run("ia-int8", clip, "--json", "--detect-size", 1280)
    assert json.loads(closer.stdout)["face"] is True
    assert run("ia-int8", clip, "--detect-size", 20).exit_code == 2
