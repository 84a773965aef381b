"""What a device may lack, or forbid: it costs time or a warning, never the answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import pytest
from click.testing import CliRunner

from mer_runtime.cli import main
from mer_runtime.errors import FaceDetectorError
from mer_runtime.inputs.face import HaarDetector

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
AS_ROOT = pytest.mark.skipif(not ROOT, reason="only root can mount")
ENGINES = ("onnxruntime", "openvino")
COMMAND = [sys.executable, "-c", "from mer_runtime.cli import main; main()"]


def answer(*arguments: object, user: Sequence[str] = (), **options: Any) -> Any:
    """Standard output of ``mer-run`` in a process of its own, as JSON."""
    command = [*user, *COMMAND, *map(str, arguments), "--json", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def clip(small_clip: Path) -> Iterator[Path]:
    """Where anybody may read it, which isn't so of ``tmp_path``."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copy(small_clip, Path(folder) / "clip.mp4"))


def without(*names: str, **values: str) -> dict[str, str]:
    return {n: v for n, v in os.environ.items() if n not in names} | values


@pytest.fixture(scope="module")
def nobody() -> list[str]:
    """What begins a command of a user of whom the system knows nothing."""
    words = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    try:
        done = subprocess.run([*words, sys.executable, "-c", "import cv2"], check=False)
    except OSError:
        pytest.skip("there is no setpriv here")
    if done.returncode:
        pytest.skip("another user may not run this Python, or nobody may become another user")
    return words


@pytest.mark.parametrize("engine", ENGINES)
def test_a_user_without_an_entry_or_a_home(clip: Path, nobody: list[str], engine: str) -> None:
    pytest.importorskip(engine)
    environment = without("HOME", "MER_CACHE")
    found = answer("ia-compact-int8", clip, "--backend", engine, env=environment, user=nobody)
    assert found["voice"]


def test_in_a_folder_of_another_user_s(clip: Path, nobody: list[str], tmp_path: Path) -> None:
    """The bundle's name is looked up there first."""
    (tmp_path / "private").mkdir(mode=0o700)
    environment = without("MER_FACE_DETECTOR", MER_CACHE=str(tmp_path / "private" / "cache"))
    options: dict[str, Any] = {"env": environment, "cwd": tmp_path / "private"}
    assert answer("ia-compact-int8", clip, user=nobody, **options)["voice"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("ia-compact-int8", "{private}/clip.mp4"), "clip.mp4: Permission denied"),
        (("{private}/bundle", "{clip}"), "bundle: Permission denied"),
        (("ia-compact-int8", "{clip}", "--overlay", "{private}/a.png"), "a.png: Permission denied"),
        (
            ("ia-compact-int8", "{clip}", "--json-out", "{private}/a"),
            "private/a: Permission denied",
        ),
    ],
)
def test_what_may_not_be_read_is_one_line(
    clip: Path, nobody: list[str], tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    names = {"clip": clip, "private": tmp_path / "private"}
    command = [*nobody, *COMMAND, *(argument.format(**names) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_no_place_for_files(clip: Path, engine: str) -> None:
    pytest.importorskip(engine)
    environment = without(TMPDIR="/proc/none", MER_CACHE="/proc/none", HOME="/proc/none")
    assert answer("ia-compact-int8", clip, "--backend", engine, env=environment)["voice"]


@AS_ROOT
@pytest.mark.parametrize("engine", ENGINES)
def test_too_small_a_place_for_files(clip: Path, tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine)
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path / "small")]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        environment = without(**dict.fromkeys(("TMPDIR", "MER_CACHE"), str(tmp_path / "small")))
        assert answer("ia-compact-int8", clip, "--backend", engine, env=environment)["voice"]
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


def test_a_working_folder_that_is_gone(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = f'cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec "$@"'
    command = ["sh", "-c", code, "sh", *COMMAND, "ia-compact-int8", str(clip), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("lacking", ["data", "CascadeClassifier"])
def test_opencv_without_haar(clip: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """As OpenCV 5, and as a system's own."""
    monkeypatch.delenv("MER_FACE_DETECTOR", raising=False)
    monkeypatch.delattr(cv2, lacking)
    result = CliRunner().invoke(main, ["ia-compact-int8", str(clip)])
    assert result.exit_code == 0, "YuNet serves"
    with pytest.raises(FaceDetectorError, match="and YuNet serves"):
        HaarDetector()
    result = CliRunner().invoke(main, ["ia-compact-int8", str(clip), "--face-detector", "haar"])
    assert result.exit_code == 1
    assert "has no Haar cascade" in result.stderr
    assert isinstance(result.exception, SystemExit)
