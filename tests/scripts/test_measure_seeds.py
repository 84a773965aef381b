"""Draws of calibration clips: kept one by one, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from mer.weights import SHIPPED


def test_goes_on_where_it_was_stopped(
    load_script: Callable[[str], ModuleType],
    fitted: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = load_script("measure_seeds")
    asked: list[tuple[str, int]] = []

    def measure(self: Any, fusion: str, seed: int) -> list[dict[str, Any]]:
        asked.append((fusion, seed))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return [{"fusion": fusion, "seed": seed, "dialect": "x86", "refused": ""}]

    monkeypatch.setattr(script.Draws, "measure", measure)
    monkeypatch.setattr(script, "DATA", tmp_path / "gate.json")
    monkeypatch.setattr(script, "write_all_tables", lambda: None)
    arguments = [str(fitted[1]), "--seeds", "2"]
    assert CliRunner().invoke(script.main, arguments).exit_code == 1
    assert len(json.loads((tmp_path / "gate.json").read_text())["seeds"]) == 3
    assert CliRunner().invoke(script.main, arguments).exit_code == 0
    every = [(fusion, seed) for seed in range(2) for fusion in SHIPPED]
    assert asked == [*every[:4], *every[3:]]
    rows = json.loads((tmp_path / "gate.json").read_text())["seeds"]
    assert [(row["fusion"], row["seed"]) for row in rows] == every
