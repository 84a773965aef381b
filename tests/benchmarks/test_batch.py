"""Batch figures: what the table says of a run, and the ways that are timed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

Load = Callable[[str], ModuleType]

RESULT: dict[str, Any] = {
    "date": "2026-01-02",
    "machine": {"cpu": "A chip", "cores": 2, "load": [0.1]},
    "clips": 240,
    "rounds": 3,
    "workers": [1, 2],
    "clips_per_second": {
        "jobs-1": {"median": 6.5, "low": 6.0, "high": 7.0},
        "jobs-2": {"median": 9.5, "low": 9.0, "high": 10.0},
        "ray-1": {"median": 5.0, "low": 4.5, "high": 5.5},
        "ray-2": {"median": 8.5, "low": 8.0, "high": 9.0},
    },
    "ratios": {
        "jobs-2": {"median": 1.46, "low": 1.4, "high": 1.5},
        "ray-2": {"median": 1.7, "low": 1.6, "high": 1.8},
    },
}


def test_table_holds_the_figures(load: Load) -> None:
    lines = load("batch_table").render_table(RESULT).splitlines()
    assert lines[:3] == [
        "A chip, 2 cores, load 0.1 at the start,",
        "2026-01-02; 240 clips, a thread a worker. Medians of",
        "3 rounds in turns, with 95 % bootstrap intervals.",
    ]
    assert lines[4] == "| clips a second | 1 worker | 2 workers | 2 against 1 |"
    assert lines[6] == (
        "| `mer-run BUNDLE FOLDER --jobs N` | 6.5 (6.0 to 7.0) | 9.5 (9.0 to 10.0) "
        "| 1.46 \N{MULTIPLICATION SIGN} (1.40 to 1.50) |"
    )
    assert lines[7].endswith(
        "| 5.0 (4.5 to 5.5) | 8.5 (8.0 to 9.0) | 1.70 \N{MULTIPLICATION SIGN} (1.60 to 1.80) |"
    )


def test_docs_and_json_agree(load: Load) -> None:
    table = load("batch_table")
    blocks = list(re.finditer(table.BLOCK, table.DOCUMENT.read_text()))
    assert len(blocks) == 1
    assert blocks[0][0] == table.render_block(blocks[0]["file"])


def test_docs_are_rewritten_between_their_markers(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load("batch_table")
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "DOCUMENT", tmp_path / "docs.md")
    data = tmp_path / "one.json"
    data.write_text(json.dumps(RESULT))
    table.DOCUMENT.write_text("before\n<!-- batch: old.json -->\nx\n<!-- /batch -->\nend")
    table.write_docs(data)
    text = table.DOCUMENT.read_text()
    assert text.startswith("before\n<!-- batch: one.json -->\nA chip")
    assert text.endswith("<!-- /batch -->\nend")


def test_every_way_has_its_row(load: Load) -> None:
    assert set(load("batch").WAYS) == set(load("batch_table").TITLES)


def test_jobs_are_timed(load: Load, sample_clip: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copyfile(sample_clip, tmp_path / name)
    assert 0 < load("batch").time_jobs("ia-int8", tmp_path, 1) < 100
    with pytest.raises(click.ClickException, match=r"mer-run: .*nowhere"):
        load("batch").time_jobs("ia-int8", tmp_path / "nowhere", 1)
