"""The workers, and README's table against the JSON that it is made of."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
Load = Callable[[str], ModuleType]


def result(contenders: list[str], bundles: tuple[str, ...]) -> dict[str, Any]:
    times = {f"{name}/window": 10.0 * (i + 1) for i, name in enumerate(contenders)}
    times |= {f"{name}/{task}": 5.0 for name in bundles for task in ("hop", "clip")}
    times |= {"mfcc-ours/mfcc": 1.0, "mfcc-librosa/mfcc": 4.0, "onnx-int8/start": 900.0}
    found = {name: {"median": t, "low": t - 1, "high": t + 1} for name, t in times.items()}
    ratio = {"median": 2.0, "low": 1.9, "high": 2.125}
    return {
        "date": "2026-01-02",
        "machine": {
            "cpu": "A chip",
            "flags": ["avx2"],
            "cores": 2,
            "versions": {"onnxruntime": "1.0", "torch": None},
            "load": [0.1, 0, 0],
        },
        "clip": {"name": "clip.mp4", "seconds": 4.0},
        "runs": [
            {
                "threads": n,
                "rounds": 9,
                "milliseconds": found,
                "ratios": {"MFCC against librosa, warm": ratio},
            }
            for n in (1, 2)
        ],
    }


def test_table_holds_the_figures(load: Load) -> None:
    table, bench = load("table"), load("bench")
    without = [name for name in bench.WINDOWS if not name.endswith("nncf")]
    text = table.render_table(result(without, bench.BUNDLES))
    assert "A chip (avx2), 2 cores, load 0.1" in text
    assert "onnxruntime 1.0. Medians of 9 rounds" in text, "what isn't installed isn't named"
    assert "| PyTorch, eager, float32 | 10.0 (9.0 to 11.0) | 10.0 (9.0 to 11.0) |" in text
    assert "NNCF's stock int8 in OpenVINO" not in text, "what wasn't run has no row"
    row = next(line for line in text.splitlines() if "MFCC" in line)
    assert row.count(f"2.00 {table.TIMES} (1.90 to 2.12)") == 2
    assert f"800.0 {table.TIMES}" in text, "4 s in 5 ms"
    assert "| 0.90 s | 0.90 s | 1.5 s | 0.8 s |" in text


def test_every_ratio_is_timed(load: Load) -> None:
    """A figure to reach whose tasks nobody runs would be left out in silence."""
    table, bench = load("table"), load("bench")
    timed = {f"{name}/window" for name in bench.WINDOWS}
    timed |= {f"{name}/{task}" for name in bench.BUNDLES for task in ("hop", "clip")}
    timed |= {f"{name}/mfcc" for name in bench.MFCCS}
    assert {side for ratio in table.RATIOS for side in (ratio.slow, ratio.fast)} <= timed
    assert set(table.TITLES) == set(bench.WINDOWS)


def test_readme_is_rewritten_between_its_markers(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, bench = load("table"), load("bench")
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "README", tmp_path / "README.md")
    data = tmp_path / "one.json"
    data.write_text(json.dumps(result(list(bench.WINDOWS), bench.BUNDLES)))
    (tmp_path / "README.md").write_text("before\n<!-- bench: old.json -->\nx\n<!-- /bench -->\nend")
    table.write_readme(data)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- bench: one.json -->\nA chip")
    assert text.endswith("<!-- /bench -->\nend")
    (tmp_path / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="needs the markers once"):
        table.write_readme(data)


def test_readme_and_json_agree(load: Load) -> None:
    table = load("table")
    blocks = list(re.finditer(table.BLOCK, (ROOT / "README.md").read_text()))
    assert len(blocks) == 1
    assert blocks[0][0] == table.render_block(blocks[0]["file"])


def test_workers_take_turns(
    load: Load, tmp_path: Path, bundle: Path, small_model: tuple[Any, Any]
) -> None:
    """Real contenders, in processes of their own, on a small model: PyTorch and its bundle."""
    from mer import Checkpoint
    from mer_export.golden import sample_clip

    bench, rivals = load("bench"), load("rivals")
    (tmp_path / "onnx-int8").symlink_to(bundle)
    rivals.write_windows(Checkpoint(*small_model), tmp_path / "windows.npz")
    paths = {
        "folder": tmp_path,
        "checkpoint": bundle.parent / "model.safetensors",
        "clip": sample_clip(),
    }
    core = sorted(os.sched_getaffinity(0))[-1]
    names = ["pytorch", "onnx-int8", "mfcc-ours"]
    with bench.open_contenders(names, [core], paths) as contenders:
        assert [c.name for c in contenders] == names
        pytorch, onnx = (np.array(c.logits) for c in contenders[:2])
        np.testing.assert_allclose(onnx, pytorch, rtol=1e-3, atol=1e-3)  # float32 in two engines
        tasks = [("pytorch", "window"), ("onnx-int8", "hop"), ("mfcc-ours", "mfcc")]
        times = bench.time_rounds(contenders, tasks, rounds=2)
    assert times.keys() == {"pytorch/window", "onnx-int8/hop", "mfcc-ours/mfcc"}
    assert all(len(one) == 2 and min(one) > 0 for one in times.values())
