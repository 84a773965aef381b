"""Files that are given as face detectors: whatever they hold, the process lives on."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mer_runtime import processes
from mer_runtime.errors import FaceDetectorError
from mer_runtime.inputs import detector_check
from mer_runtime.inputs.detector_check import KNOWN_SHA256, read_detector
from mer_runtime.inputs.face import YuNetDetector
from mer_runtime.store import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept" / "detectors"


@pytest.fixture
def renamed(yunet: Path, tmp_path: Path) -> Path:
    """YuNet with another name of its producer in it: another file, as good."""
    content = yunet.read_bytes()
    assert content.count(b"pytorch") == 1
    (tmp_path / "other.onnx").write_bytes(content.replace(b"pytorch", b"nothing"))
    return tmp_path / "other.onnx"


def test_known_one_is_read_at_once(
    yunet: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_check, "_try", lambda content: pytest.fail("tried"))
    assert hashlib.sha256(read_detector(yunet)).hexdigest() == KNOWN_SHA256
    YuNetDetector(yunet)
    assert not kept.exists()


def test_another_is_tried_once(renamed: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    YuNetDetector(renamed)
    assert [file.name for file in kept.iterdir()] == [
        hashlib.sha256(renamed.read_bytes()).hexdigest()
    ]
    monkeypatch.setattr(detector_check, "_try", lambda content: pytest.fail("tried again"))
    YuNetDetector(renamed)


def test_tried_outside_the_working_folder(
    renamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are called like modules aren't run."""
    for name in ("cv2", "numpy", "resource"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    read_detector(renamed)
    assert not (tmp_path / "ran").exists()


def abort() -> None:
    os.abort()


def hang() -> None:
    while True:
        time.sleep(1)


def fail() -> None:
    raise RuntimeError


@pytest.mark.parametrize("ending", [abort, hang, fail])
def test_what_takes_a_process_along(
    ending: Callable[[], None], renamed: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that ends like OpenCV's worst: this process tells it in one line."""
    trial = f"{Path(__file__).stem}:{ending.__name__}"
    start = processes.start_python

    def start_ending(function: str, **options: Any) -> Any:
        assert function == "mer_runtime.inputs.detector_check:try_detector"
        return start(trial, **options)

    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(detector_check, "start_python", start_ending)
    monkeypatch.setattr(detector_check, "PATIENCE", 5.0)
    with pytest.raises(FaceDetectorError, match="not a YuNet face detector"):
        YuNetDetector(renamed)
    assert not kept.exists()


def test_trial_that_computes_for_ever_is_ended() -> None:
    """By its own processor time: a busy machine's wait is no fault of the file's."""
    code = (
        "from mer_runtime.inputs import detector_check as d; d.CPU_SECONDS = 1\n"
        "def compute(*given):\n    while True: pass\n"
        "import cv2; cv2.FaceDetectorYN.create = compute; d.try_detector()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL


def test_trial_is_bounded() -> None:
    """Of a graph that wants more memory than there may be."""
    code = (
        "from mer_runtime.inputs import detector_check as d; import cv2, numpy as np;"
        "cv2.FaceDetectorYN.create = lambda *given: np.ones(3 << 30, np.uint8); d.try_detector()"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True, check=False)
    assert b"Unable to allocate" in done.stderr


@pytest.mark.parametrize("cut", [0, 1, 100, 5_000, 100_000, 232_000])
def test_any_cut(cut: int, yunet: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.onnx"
    file.write_bytes(yunet.read_bytes()[:cut])
    with pytest.raises(FaceDetectorError, match="not a YuNet face detector"):
        YuNetDetector(file)


def test_nowhere_to_keep_it(renamed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "/dev/null/below")
    YuNetDetector(renamed)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(FaceDetectorError, match="can't be read as a face detector"):
        YuNetDetector(tmp_path / name)
