"""Files that are given as face detectors: whatever they hold, the process lives on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "script", ["import os; os.abort()", "while True: pass", "a = bytearray(3 << 30)", "1 / 0"]
)
def test_what_takes_a_process_along(
    script: str, renamed: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that ends like OpenCV's worst: this process tells it in one line."""
    trial = detector_check.TRIAL.replace("import cv2", script, 1)
    monkeypatch.setattr(detector_check, "TRIAL", trial)
    monkeypatch.setattr(detector_check, "PATIENCE", 3.0)
    with pytest.raises(FaceDetectorError, match="not a YuNet face detector"):
        YuNetDetector(renamed)
    assert not kept.exists()


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
