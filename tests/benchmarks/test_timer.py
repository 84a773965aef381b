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


def result(
    contenders: list[str], bundles: tuple[str, ...], flags: str = "avx2", hidden: str = ""
) -> dict[str, Any]:
    times = {f"{name}/window": 10.0 * (i + 1) for i, name in enumerate(contenders)}
    times |= {f"{name}/{task}": 5.0 for name in bundles for task in ("hop", "clip")}
    times |= {"mfcc-ours/mfcc": 1.0, "mfcc-librosa/mfcc": 4.0, "onnx-int8/start": 900.0}
    found = {name: {"median": t, "low": t - 1, "high": t + 1} for name, t in times.items()}
    ratio = {"median": 2.0, "low": 1.9, "high": 2.125}
    return {
        "date": "2026-01-02",
        "machine": {
            "cpu": "A chip",
            "flags": flags.split(),
            "hidden": hidden.split(),
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
                "ratios": {
                    "MFCC against librosa, warm": ratio,
                    "ONNX Runtime int8 bundle against ONNX Runtime fp32": ratio,
                },
            }
            for n in (1, 2)
        ],
    }


def test_details_hold_the_figures(load: Load) -> None:
    table, bench = load("table"), load("bench")
    without = [name for name in bench.WINDOWS if not name.endswith("nncf")]
    text = table.render_details(result(without, table.BUNDLES))
    assert text.startswith("### AVX2 without VNNI\n\nA chip (avx2), 2 cores, load 0.1")
    assert "onnxruntime 1.0. Medians of 9 rounds" in text, "what isn't installed isn't named"
    assert "| PyTorch, eager, float32 | 10.0 (9.0 to 11.0) | 10.0 (9.0 to 11.0) |" in text
    assert "NNCF's stock int8 in OpenVINO" not in text, "what wasn't run has no row"
    row = next(line for line in text.splitlines() if "MFCC" in line)
    assert row.count(f"2.00 {table.TIMES} (1.90 to 2.12)") == 2
    assert f"800.0 {table.TIMES}" in text, "4 s in 5 ms"
    assert "| 0.90 s | 0.90 s | 1.5 s | 0.8 s |" in text


def test_overview_sets_kinds_side_by_side(load: Load) -> None:
    table, bench = load("table"), load("bench")
    full = result(list(bench.WINDOWS), table.BUNDLES, "avx2 avx512_vnni")
    without = [name for name in bench.WINDOWS if not name.endswith(("nncf", "bf16"))]
    lines = table.render_overview(
        [full, result(without, table.BUNDLES, "avx2", "avx512_vnni amx_int8")]
    ).splitlines()
    heads = "VNNI, 2 threads", "AVX2 without VNNI, 2 threads"
    assert lines[0] == f"| milliseconds | {heads[0]} | {heads[1]} |"
    assert "| PyTorch, eager, float32 | 10.0 | 10.0 |" in lines
    nncf = "untouched network, NNCF's stock int8 in OpenVINO"
    assert f"| {nncf} | 70.0 | {table.NOTHING} |" in lines
    assert "| **our int8 bundle, ONNX Runtime** | 90.0 | 70.0 |" in lines
    assert "| process start to a clip's answer, onnx-int8 | 900 | 900 |" in lines
    assert lines[-2] == "VNNI: A chip, 2 cores, 2026-01-02, medians of 9 rounds."
    assert lines[-1].startswith("AVX2 without VNNI: A chip, 2 cores, avx512_vnni, amx_int8 hidden")


def test_details_tell_of_hidden_instructions(load: Load) -> None:
    table, bench = load("table"), load("bench")
    found = result(list(bench.WINDOWS), table.BUNDLES, "avx2", "avx512_vnni amx_int8")
    text = table.render_details(found)
    assert (
        "A chip (avx2; hidden from every process by CPUID faulting: avx512_vnni, amx_int8)" in text
    )
    (row,) = (
        one
        for one in text.splitlines()
        if "ONNX Runtime int8 bundle against ONNX Runtime fp" in one
    )
    times = table.TIMES
    assert row.split(" | ")[1:] == [f"2.00 {times} (1.90 to 2.12)"] * 2 + [
        f"1.3 {times}",
        f"1.6 {times} |",
    ]


def test_goals_of_a_kind_that_has_none(load: Load) -> None:
    table, bench = load("table"), load("bench")
    text = table.render_details(result(list(bench.WINDOWS), table.BUNDLES, "asimddp"))
    assert text.startswith("### SDOT")
    (row,) = (line for line in text.splitlines() if line.startswith("| ONNX Runtime int8 bundle"))
    assert row.endswith(f"| {table.NOTHING} | {table.NOTHING} |")
    assert f"| 4 {table.TIMES} | 6 {table.TIMES} |" in text, "MFCCs hang on no such instruction"


def test_every_ratio_is_timed(load: Load) -> None:
    """A figure to reach whose tasks nobody runs would be left out in silence."""
    table, bench, goals = load("table"), load("bench"), load("goals")
    timed = {f"{name}/window" for name in bench.WINDOWS}
    timed |= {f"{name}/{task}" for name in table.BUNDLES for task in ("hop", "clip")}
    timed |= {f"{name}/mfcc" for name in bench.MFCCS}
    assert {side for ratio in goals.RATIOS for side in (ratio.slow, ratio.fast)} <= timed
    assert set(table.TITLES) == set(bench.WINDOWS)


def test_results_of_a_kind_take_the_place_of_its_last(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, bench = load("table"), load("bench")
    readme, document = tmp_path / "README.md", tmp_path / "docs.md"
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(
        table, "BLOCKS", {readme: table.render_overview, document: table.render_all_details}
    )
    for name, flags in [("old", "avx2"), ("arm", "asimddp"), ("new", "avx2"), ("vnni", "avx_vnni")]:
        found = result(list(bench.WINDOWS), table.BUNDLES, flags)
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    for file in (readme, document):
        file.write_text("before\n<!-- bench: old.json arm.json -->\nx\n<!-- /bench -->\nend")
    table.write_tables(tmp_path / "new.json")
    assert "<!-- bench: new.json arm.json -->\n" in readme.read_text(), "the fastest kind first"
    table.write_tables(tmp_path / "vnni.json")
    for file, first in ((readme, "| milliseconds | VNNI"), (document, "### VNNI\n")):
        text = file.read_text()
        assert text.startswith(f"before\n<!-- bench: vnni.json new.json arm.json -->\n{first}")
        assert text.endswith("<!-- /bench -->\nend")
    assert document.read_text().count("### ") == 3
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="needs the markers once"):
        table.write_tables(tmp_path / "new.json")


def test_tables_and_json_agree(load: Load) -> None:
    table = load("table")
    assert set(table.BLOCKS) == {ROOT / "README.md", ROOT / "docs" / "reference" / "benchmarks.md"}
    files = set()
    for document, render in table.BLOCKS.items():
        blocks = list(re.finditer(table.BLOCK, document.read_text()))
        assert len(blocks) == 1
        assert blocks[0][0] == table.render_block(blocks[0]["files"].split(), render)
        files.add(blocks[0]["files"])
    assert len(files) == 1, "both tell of the same results"


def test_results_are_named_after_the_kind(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = load("bench")
    monkeypatch.setattr(bench, "HERE", tmp_path)
    machine = {"cpu": "A(R) Chip 3", "cores": 4, "flags": ["avx", "avx2"]}
    assert bench.write_result({"machine": machine}).name == "avx2-a-r-chip-3-4-cores.json"
    machine["flags"] = ["asimddp", "i8mm"]
    assert bench.write_result({"machine": machine}, "x-").name == "x-i8mm-a-r-chip-3-4-cores.json"


def test_workers_take_turns(
    load: Load, tmp_path: Path, bundle: Path, small_model: tuple[Any, Any]
) -> None:
    """Real contenders, in processes of their own, on a small model: PyTorch and its bundle."""
    from mer import Checkpoint
    from mer_export.proof.golden import sample_clip

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
        pytorch, onnx = (np.array(c.facts["logits"]) for c in contenders[:2])
        np.testing.assert_allclose(onnx, pytorch, rtol=1e-3, atol=1e-3)  # float32 in two engines
        tasks = [("pytorch", "window"), ("onnx-int8", "hop"), ("mfcc-ours", "mfcc")]
        times = bench.time_rounds(contenders, tasks, rounds=2)
    assert times.keys() == {"pytorch/window", "onnx-int8/hop", "mfcc-ours/mfcc"}
    assert all(len(one) == 2 and min(one) > 0 for one in times.values())
