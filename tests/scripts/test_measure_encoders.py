"""Encoders are trained once, timed in turns, and shown in a table."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mer.errors import CacheError
from mer_runtime.bundle import shipped_bundle

Load = Callable[[str], ModuleType]


def test_what_was_trained_is_not_trained_again(load_script: Load, tmp_path: Path) -> None:
    script = load_script("measure_encoders")
    candidate, run = script.CANDIDATES[0], tmp_path / "run"
    run.mkdir()
    head = ["epoch", "validation_prec1", "test_prec1"]

    def write(*rows: list[float | str]) -> None:
        with (run / "metrics.csv").open("w") as file:
            csv.writer(file).writerows([head, *rows])

    write([1, 20.5, ""])
    nothing = tmp_path / "photos"
    with pytest.raises(CacheError):  # an unfinished run goes on
        script.learn_photos(candidate, nothing, nothing, run)
    write([1, 20.5, ""], [2, 51.25, 49.5])
    assert script.learn_photos(candidate, nothing, nothing, run) == 51.25


def test_every_encoder_is_timed(
    load_script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("measure_encoders")
    monkeypatch.setattr(script, "TARGETS", {"onnxruntime": "onnx"})
    monkeypatch.setattr(script, "ROUNDS", 2)
    candidate = script.CANDIDATES[0]
    (tmp_path / f"{candidate.name}-onnxruntime").symlink_to(shipped_bundle("ia-compact-int8"))
    (times,) = script.time_encoders([candidate], tmp_path).values()
    assert list(times) == ["onnxruntime"]
    assert times["onnxruntime"] > 0


def test_table(load_script: Load) -> None:
    row = {
        "encoder": "compact",
        "size": 96,
        "macs": 15 * 39_400_000,
        "parameters": 574_464,
        "photos": 51.5,
        "clips": {"both": 70.1, "audio": 60.0, "video": 50.5},
        "sqnr": {"onnxruntime": 38.0, "openvino": 38.5},
        "milliseconds": {"onnxruntime": 8.1, "openvino": 5.2},
    }
    data = {"processor": "some CPU", "threads": 2, "rounds": 20, "rows": [row]}
    table = load_script("face_tables").format_encoders(data).splitlines()
    assert table[2] == (
        "| `compact`, 96 | 39.4 | 574 | 51.5 | 70.1, 60.0, 50.5 | 38.0, 38.5 | 8.1, 5.2 |"
    )
    assert table[-1] == "Int8, 2 threads, medians of 20 turns: some CPU."
