"""The proof of faults finds what it is there to find."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import prove_faults
from fault_conditions import CONDITIONS
from fault_subjects import Subject
from fault_tables import format_conditions, format_inputs, format_kills

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for processes in /proc"
)
WHOLE = "whole"
#: Writes a file in pieces, by way of another name or not.
WRITES = """
import os, sys, time
out, name = sys.argv[1], sys.argv[2] or sys.argv[1]
with open(name, "w") as file:
    for letter in "whole":
        file.write(letter)
        file.flush()
        time.sleep(0.05)
os.replace(name, out)
"""
LEAVES = """
import subprocess, sys, time
subprocess.Popen(["sleep", "60"], stderr=subprocess.DEVNULL, start_new_session=True)
time.sleep(2)
"""


def check(out: Path) -> None:
    assert not out.exists() or out.read_text() == WHOLE, out.read_text()


def done(out: Path) -> None:
    assert out.read_text() == WHOLE


def subject(code: str, *arguments: str, **options: Any) -> Subject:
    return Subject("stand-in", ("-c", code, "{out}", *arguments), check, done, **options)


def prove(one: Subject, folder: Path, kills: int) -> list[str]:
    row = prove_faults.prove_kills(one, folder, kills, time.monotonic() + 300, random.Random(1))
    found: list[str] = row["problems"]
    assert found or row["kills"] == kills
    return found


def test_a_file_that_is_renamed_holds(tmp_path: Path) -> None:
    assert prove(subject(WRITES, "{out}.part"), tmp_path, 6) == []


def test_a_file_that_is_written_in_place_is_found(tmp_path: Path) -> None:
    (problem,) = prove(subject(WRITES, ""), tmp_path, 40)
    assert "AssertionError" in problem


def test_an_orphan_is_found_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove_faults, "FAREWELL", 3.0)
    words = subject(LEAVES).words(tmp_path / "out", again=False)
    found = prove_faults.kill_at(words, 1.0, prove_faults.SIGNALS[0])
    assert found == ["1 processes were left by SIGKILL"]


@pytest.mark.parametrize("name", ["SIGPIPE", "32 open files", "files of 300 kB at most"])
def test_conditions(tmp_path: Path, name: str) -> None:
    (condition,) = (one for one in CONDITIONS if one.name == name)
    good = prove_faults.prove_condition(subject(WRITES, "{out}.part"), condition, tmp_path)
    assert good == {"command": "stand-in", "condition": name, "problems": []}
    bad = prove_faults.prove_condition(subject("raise OSError"), condition, tmp_path)
    assert bad is not None
    assert "a traceback" in bad["problems"]


def test_counts_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove_faults, "DATA", tmp_path / "reliability.json")
    monkeypatch.setattr(prove_faults, "write_all_tables", lambda: None)
    (tmp_path / "reliability.json").write_text('{"inputs": 3}')
    row = {"command": "train", "kills": 1, "signals": {"SIGKILL": 1}, "finished": 1}
    row |= {"seconds": 2.0, "problems": []}
    prove_faults.write_counts([row], [])
    prove_faults.write_counts([row | {"kills": 2}], [])
    held = {"condition": "SIGPIPE", "command": "train", "problems": ["x"]}
    prove_faults.write_counts([], [held])
    data = json.loads((tmp_path / "reliability.json").read_text())
    assert data["inputs"] == 3
    assert format_kills(data).splitlines()[2:] == ["| train | 2 | SIGKILL 1 | 1 | 2 | 0 |"]
    assert format_conditions(data).splitlines()[2:] == ["| SIGPIPE | train | 1 |"]
    assert [path.name for path in tmp_path.iterdir()] == ["reliability.json"]


def test_table_of_inputs() -> None:
    counts = {"refused": 3, "peak_mb": 90, "seconds": 1.6, "fault": ""}
    failed = {"inputs": 0, "seconds": 2.0, "fault": "it ended with -6"}
    data = {"fuzz": {"graphs": {"inputs": 1047, **counts}, "ranges": failed}}
    assert format_inputs(data).splitlines()[2:] == [
        "| graphs | 1 047 | 3 | 90 | 2 | 0 |",
        "| ranges | 0 |  |  | 2 | 1 |",
        "| **all** | **1 047** |  |  |  | **1** |",
    ]
