"""``mer-run FOLDER --ray``: the same answers as here, also where a worker is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mer_runtime.cli import main

COMMAND = [sys.executable, "-c", "from mer_runtime.cli import main; main()"]
#: As Ray names a process of ours that is at work.
WORKER = b"ray::_work"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def read_lines(text: str) -> list[dict[str, Any]]:
    """Answers without the times that they took."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture
def archive(make_clip: Callable[..., Path], tmp_path: Path) -> Path:
    """Clips in two folders, one of them no sound; named from the folder above."""
    folder = tmp_path / "archive"
    (folder / "b").mkdir(parents=True)
    first = make_clip("archive/000.wav", seconds=0.5)
    for number in range(1, 12):
        shutil.copy(first, folder / "b" / f"{number:03}.wav")
    (folder / "bad.wav").write_text("not sound")
    return folder


def find_workers() -> list[int]:
    """Processes of this machine's clusters that answer a clip."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(WORKER):
                found.append(int(process.name))
    return found


def test_same_lines_as_here_though_a_worker_is_killed(
    bundle: Path, archive: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.parent)
    here = run(bundle, "archive", "--json", "--threads", 1)
    assert here.exit_code == 1  # one can't be read
    options = ["archive", "--json", "--ray", cluster, "--jobs", "2"]
    process = subprocess.Popen(
        [*COMMAND, str(bundle), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (workers := find_workers()):
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    out, told = process.communicate()
    assert process.returncode == 1, told
    assert "Traceback" not in told
    assert read_lines(out) == read_lines(here.stdout)
    assert [line["source"] for line in read_lines(out) if "error" in line] == ["archive/bad.wav"]


def test_workers_import_nothing_from_the_working_folder(
    bundle: Path, archive: Path, cluster: str, tmp_path: Path
) -> None:
    """Ray would put it first in their paths."""
    for name in ("mer_runtime", "numpy", "pickle"):
        (archive / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    # As a console script: -c and -m would import from there themselves.
    script = tmp_path / "start.py"
    script.write_text("from mer_runtime.cli import main\nmain()\n")
    command = [sys.executable, script, bundle, "b", "--json", "--ray", cluster]
    done = subprocess.run(list(map(str, command)), cwd=archive, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_lines(done.stdout)) == 11
    assert not (tmp_path / "mark").exists()


def test_cluster_reports_to_nobody(cluster: str) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()


@pytest.mark.parametrize("ray", [False, True], ids=["here", "ray"])
def test_resume(
    bundle: Path, archive: Path, tmp_path: Path, ray: bool, request: pytest.FixtureRequest
) -> None:
    """An earlier run was killed in mid-line; what it answered stays as it is."""
    if ray:
        request.getfixturevalue("cluster")
    out = tmp_path / "answers.jsonl"
    (archive / "bad.wav").unlink()
    clips = sorted(path for path in archive.rglob("*.wav"))
    done = {"source": str(clips[0]), "label": "kept from before"}
    failed = {"source": str(clips[1]), "error": "was locked"}
    out.write_text(f'{json.dumps(done)}\n{json.dumps(failed)}\n{{"source": "{clips[2]}", "lab')
    where = ["--ray", "local", "--jobs", 1] if ray else ["--threads", 1]
    result = run(bundle, archive, "--json", "--json-out", out, "--resume", *where)
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert answers[0] == done
    assert [one["source"] for one in answers] == [str(clip) for clip in clips]
    assert len(result.stdout.splitlines()) == len(clips) - 1
    before = out.read_text()
    again = run(bundle, archive, "--json", "--json-out", out, "--resume", *where)
    assert (again.exit_code, again.stdout, out.read_text()) == (0, "", before)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("{clip}", "--ray", "local"), "--ray is for a folder of clips"),
        (("{clip}", "--resume"), "--resume is for a folder of clips"),
        (("{folder}", "--ray", "local", "--timeline", "a.csv"), "--ray is for one answer a clip"),
        (("{folder}", "--resume"), "--resume goes on with the FILE of --json-out"),
        (("-", "--resume"), "--resume is for a folder of clips"),
    ],
)
def test_where_they_have_no_use(
    small_clip: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    words = [word.format(clip=small_clip, folder=small_clip.parent) for word in arguments]
    result = run("ia-int8", *words)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_without_ray(small_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("ia-int8", small_clip.parent, "--ray", "auto")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: --ray needs the package ray: install it with pip install 'mer-edge[ray]'\n"
    )


def test_cluster_that_is_not_there(small_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    result = run("ia-int8", small_clip.parent, "--ray", "nonsense://127.0.0.1:1")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: no Ray cluster can be reached at nonsense://127.0.0.1:1: ")
