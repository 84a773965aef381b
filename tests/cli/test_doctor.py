"""``mer-doctor``: what it finds here, and what it says of devices that lack something."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mer_runtime import Recognizer, doctor, jobs
from mer_runtime.bundle import load_bundle
from mer_runtime.cli.doctor import main

COMMAND = [sys.executable, "-c", "from mer_runtime.cli.doctor import main; main()"]


def examine(*arguments: object, code: int = 0) -> dict[str, dict[str, Any]]:
    """The findings by subject, in this process."""
    result = CliRunner().invoke(main, ["--json", "--threads", "1", *map(str, arguments)])
    assert result.exit_code == code, result.output
    data = json.loads(result.stdout)
    assert data["ok"] == (code == 0)
    return {finding["subject"]: finding for finding in data["findings"]}


def test_here() -> None:
    found = examine()
    recognizer = Recognizer.load("ia-int8", threads=1)
    assert found["onnxruntime"]["state"] == "ok"
    assert found["onnxruntime"]["needed"]
    assert found["onnxruntime"]["backend"] == recognizer.backend.name
    assert found["onnxruntime"]["max_difference"] == recognizer.self_test().max_difference
    assert found["onnxruntime"]["milliseconds"] > 0
    assert not found["openvino"]["needed"]
    assert set(doctor.NEEDS) < set(found)


def test_text_says_what_mends() -> None:
    result = CliRunner().invoke(main, ["--need", "tensorrt", "--threads", "1"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if " tensorrt " in line)
    assert lines[place].startswith("ABSENT")
    assert lines[place + 1].strip() == "mend it: pip install 'mer-edge[tensorrt]'"
    assert lines[-1] == "Wrong: tensorrt."


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(jobs, "start_python", refuse)
    found = examine(code=1)
    assert "no process can be started" in found["onnxruntime"]["text"]
    assert found["face detector"]["state"] == "ok", "the rest is told all the same"


@pytest.mark.parametrize("place", ["/dev/null/cache", "/proc/none"])
def test_a_cache_that_can_not_be(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("MER_CACHE", place)
    assert doctor._find_cache().state == "wrong"


@pytest.mark.slow
@pytest.mark.parametrize("needs", [(), ("--need", "openvino")])
def test_engine_that_takes_its_process_along(tmp_path: Path, needs: tuple[str, ...]) -> None:
    """As one does that was built for another processor."""
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("import os; os.abort()")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*COMMAND, "--json", *needs],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(needs), done.stderr
    findings = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    assert findings["openvino"]["state"] == "wrong"
    assert "died (code -6)" in findings["openvino"]["text"]
    assert findings["onnxruntime"]["state"] == "ok"


def test_wrong_answers(tmp_path: Path, edit_golden: Callable[..., None]) -> None:
    folder = Path(shutil.copytree(load_bundle("ia-compact-int8").path, tmp_path / "wrong"))
    edit_golden(folder, answers=load_bundle(folder).golden().answers + 1)
    found = examine(folder, code=1)["onnxruntime"]
    assert found["state"] == "wrong"
    assert "its answers are wrong here" in found["text"]
    assert found["remedy"].startswith("on a PC: mer-export ")
    assert found["max_difference"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_bundle_that_cannot_be_read(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "bundle"
    if change == "edited":
        shutil.copytree(load_bundle("ia-compact-int8").path, folder)
        (folder / "no_face.npy").write_bytes(b"other")
    found = examine(folder, code=1)
    assert found["bundle"]["state"] == "wrong"
    assert str(folder) in found["bundle"]["text"]
    assert found["bundle"]["remedy"].startswith("mer-export CHECKPOINT --out ")
    assert "onnxruntime" not in found


def test_cameras_and_microphones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices as Linux lists them, in folders of our own; without a bundle, for that is slow."""
    none = tmp_path / "none"
    monkeypatch.setattr(doctor, "CAMERAS", none)
    assert examine(none, code=1)["camera"]["state"] == "absent"
    for name in ("dev", "snd", "names/video0"):
        (tmp_path / name).mkdir(parents=True)
    for file in ("dev/video0", "snd/pcmC1D0c", "snd/pcmC0D0p"):
        (tmp_path / file).touch()
    (tmp_path / "names" / "video0" / "name").write_text("UVC Camera\n")
    (tmp_path / "cards").write_text(" 1 [Device   ]: USB-Audio - USB Microphone\n    at usb-1\n")
    monkeypatch.setattr(doctor, "CAMERAS", tmp_path / "dev")
    monkeypatch.setattr(doctor, "CAMERA_NAMES", tmp_path / "names")
    monkeypatch.setattr(doctor, "SOUND", tmp_path / "snd")
    monkeypatch.setattr(doctor, "SOUND_NAMES", tmp_path / "cards")
    found = examine(none, "--need", "camera", code=1)
    assert found["camera"]["needed"]
    assert not found["microphone"]["needed"]
    assert found["camera"]["text"] == f"{tmp_path}/dev/video0 (UVC Camera)"
    assert found["microphone"]["text"] == f"{tmp_path}/snd/pcmC1D0c (USB-Audio - USB Microphone)"
    monkeypatch.setattr(os, "access", lambda path, mode: "video0" not in str(path))
    camera = examine(none, code=1)["camera"]
    assert camera["state"] == "wrong"
    assert camera["remedy"] == "sudo usermod -aG video $USER, then log in again"


def test_cache_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("MER_CACHE", str(tmp_path))
    found = examine(tmp_path / "none", code=1)["cache"]
    assert (found["state"], found["needed"]) == ("wrong", False)
    assert "MER_CACHE" in found["remedy"]
