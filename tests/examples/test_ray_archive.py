"""The archive example on a local Ray cluster of two workers, one of which is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ray_archive.py"
#: As Ray names the processes of a map's actors.
ACTOR = b"ray::MapWorker"


@pytest.fixture(scope="module")
def python() -> str:
    """One that has Ray: this, or what benchmarks/ray_environment.sh made."""
    if importlib.util.find_spec("ray"):
        return sys.executable
    own = ROOT / "cache" / "ray" / "bin" / "python"
    if not own.exists():
        pytest.skip("needs Ray: benchmarks/ray_environment.sh cache")
    return str(own)


def find_actors(mark: str) -> list[int]:
    """Processes of actors of the cluster that was started with ``mark`` in its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            ours = mark.encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if command.startswith(ACTOR) and ours:
            found.append(int(process.name))
    return found


def test_killed_worker(
    python: str, bundle: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    archive, answers = tmp_path / "archive", tmp_path / "answers"
    archive.mkdir()
    first = make_clip("archive/000.wav", seconds=0.3)
    for number in range(1, 160):
        shutil.copy(first, archive / f"{number:03}.wav")
    (archive / "bad.wav").write_text("not sound")
    mark = uuid.uuid4().hex
    command = [python, str(EXAMPLE), str(bundle), str(archive), str(answers), "--workers", "2"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "MER_MARK": mark},
    )
    deadline = time.monotonic() + 240
    while not list(answers.glob("*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    actors = find_actors(mark)
    assert actors
    os.kill(actors[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    told = json.loads(out.splitlines()[-1])
    lines = [
        json.loads(line)
        for file in answers.glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    counted = Counter(Path(line["source"]).name for line in lines)
    assert counted == {path.name: 1 for path in archive.iterdir()}
    assert [Path(line["source"]).name for line in lines if "error" in line] == ["bad.wav"]
    assert told["clips"] == len(lines) == 161
    assert {path.suffix for path in answers.iterdir()} == {".jsonl"}
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(again.stdout) == {"clips": 0}
