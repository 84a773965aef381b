"""Processes of our own: what they import, and that they end with the one that started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mer_runtime.processes import list_import_path

MakeClip = Callable[..., Path]
#: Modules that a child imports early, late, and by way of others.
PLANTED = ("json", "multiprocessing", "numpy", "pickle", "runpy", "threading", "mer_runtime", "cv2")
COMMANDS = {
    "mer-run": "mer_runtime.cli",
    "mer-prepare": "mer.cli.prepare",
    "mer-bench": "mer_bench.command",
}
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A working folder whose modules leave a mark when they are imported."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in PLANTED:
        mark = f"import os; os.close(os.open({str(tmp_path / name)!r} + '.mark', os.O_CREAT))"
        (folder / f"{name}.py").write_text(f"{mark}\nraise SystemExit(9)\n")
    return folder


def start_command(script: Path, module: str, *arguments: object, **options: Any) -> Any:
    """A command in a process, as its console script starts it."""
    script.write_text(f"from {module} import main\nmain()\n")
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_imported_from_the_working_folder(
    bundle: Path, planted: Path, make_clip: MakeClip, tmp_path: Path, name: str
) -> None:
    if name == "mer-bench":
        options: tuple[object, ...] = (bundle, "--clip", make_clip(seconds=1.0), "--seconds", 0.01)
    else:
        for actor in (5, 6):
            make_clip(f"planted/03-01-01-01-01-01-{actor:02}.wav", seconds=0.5)
        before = (bundle,) if name == "mer-run" else ()
        after = ("--out", tmp_path / "cache") if name == "mer-prepare" else ()
        options = (*before, ".", *after, "--jobs", 2)
    command = start_command(tmp_path / "start.py", COMMANDS[name], *options, cwd=planted)
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 0, errors
    assert not list(tmp_path.glob("*.mark"))


@pytest.mark.parametrize("how", ["-c", "-m"])
def test_python_s_own_entry_is_left_out(tmp_path: Path, how: str) -> None:
    code = "import sys; from mer_runtime.processes import list_import_path as path; print(path())"
    (tmp_path / "started.py").write_text(code)
    command = [sys.executable, how, code if how == "-c" else "started"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path) not in done.stdout
    assert "''" not in done.stdout


def test_a_folder_that_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.syspath_prepend(tmp_path)
    assert list_import_path()[0] == str(tmp_path)


SLEEPY = """
import sys, time
from functools import partial
from pathlib import Path
from mer_runtime.jobs import work_in_parallel

def load():
    return Path(sys.argv[0])

def sleep(loaded, item):
    Path(item).touch()
    time.sleep(600)
"""


@LINUX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_orphans(tmp_path: Path, number: signal.Signals) -> None:
    """However a process ends, busy children end with it."""
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    items = [str(tmp_path / name) for name in ("one", "two")]
    (tmp_path / "start.py").write_text(
        "from mer_runtime.jobs import work_in_parallel\nimport sleepy\n"
        f"list(work_in_parallel({items!r}, 2, sleepy.load, sleepy.sleep))\n"
    )
    parent = subprocess.Popen([sys.executable, str(tmp_path / "start.py")])
    wait_until(lambda: all(Path(item).exists() for item in items))
    children = list_children(parent.pid)
    assert len(children) == 2
    parent.send_signal(number)
    parent.wait(60)
    wait_until(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children))


@LINUX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_commands_end_tidily(
    bundle: Path, make_clip: MakeClip, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal that asks for the end: no traceback, no child, no half-written picture."""
    (tmp_path / "clips").mkdir()
    for i in range(40):
        make_clip(f"clips/{i:02}.mp4", seconds=1.0)
    options = (bundle, tmp_path / "clips", "--jobs", 2, "--overlay", tmp_path / "pictures")
    command = start_command(tmp_path / "start.py", COMMANDS["mer-run"], *options)
    command.stdout.readline()
    children = list_children(command.pid)
    command.send_signal(number)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 128 + number
    assert "Traceback" not in errors
    wait_until(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children))


def list_children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def wait_until(reached: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_too_many_open_files() -> None:
    """No process can be started: one error, and nothing waits."""
    code = (
        "import os, resource, mer_runtime.jobs as jobs\n"
        "from mer_runtime.errors import MerError\n"
        "free = os.open(os.devnull, 0)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))\n"
        "try:\n    list(jobs.work_in_parallel([1], 2, int, max))\n"
        "except MerError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "no process can be started: Too many open files\n", done.stderr
