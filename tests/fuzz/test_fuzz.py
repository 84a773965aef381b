"""A part of ``make fuzz`` with fixed seeds: hostile inputs for everything that takes any."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from fuzz import SUBJECTS, feed
from fuzzing import Outcome, Subject, run_subject
from mer_runtime.errors import MediaError

#: Inputs of each subject, in all two minutes.
INPUTS = {"checkpoints": 15, "command lines": 15, "detectors": 6}


@pytest.mark.parametrize("name", SUBJECTS)
def test_subject(name: str) -> None:
    row = feed(name, INPUTS.get(name, 40), seed=1)
    assert not row["fault"], row["fault"]
    assert row["inputs"] > 0


def refuse(case: int) -> None:
    raise MediaError("a.mp4", "refused")


def fail(case: int) -> None:
    raise KeyError(case)


def write(case: int) -> None:
    Path(__file__).with_name("written").write_text("outside")


def connect(case: int) -> None:
    with socket.socket() as made, suppress(OSError):
        made.connect(("127.0.0.1", 9))


def grow(case: int) -> None:
    bytearray(b"x") * (1 << 28)


def hang(case: int) -> None:
    time.sleep(30)


def end(case: int) -> None:
    import os

    os.abort()


@pytest.mark.parametrize(
    ("take", "told"),
    [
        (refuse, "fault=''"),
        (fail, "KeyError"),
        (write, "to write"),
        (connect, "it did "),
        (grow, "it did took"),
        (hang, "Timeout"),
        (end, "Fatal Python error"),
    ],
)
def test_harness_notices(take: Any, told: str, tmp_path: Path) -> None:
    """Each kind of fault, in a process of its own: what watches stays until it ends."""
    scripts = Path(__file__).parents[2] / "scripts"
    code = (
        "import sys, faulthandler; faulthandler.enable();"
        f"sys.path[:0] = [{str(scripts)!r}, {str(Path(__file__).parent)!r}];"
        "import fuzzing, test_fuzz; from pathlib import Path;"
        "fuzzing.PATIENCE = 5.0; fuzzing.MEMORY = 1 << 27;"
        f"print(test_fuzz.run({take.__name__!r}, Path({str(tmp_path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert told in done.stdout + done.stderr
    assert not Path(__file__).with_name("written").exists() or take is write
    Path(__file__).with_name("written").unlink(missing_ok=True)


def run(name: str, folder: Path) -> Outcome:
    """Feed one of the functions above."""
    subject = Subject(1, lambda _: (st.integers(), globals()[name]))
    return run_subject(subject, 5, 0, folder)
