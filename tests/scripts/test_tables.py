"""The documents' tables: the same as what was logged, and made of it by the script alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def script(load_script: Load) -> ModuleType:
    return load_script("make_tables")


def test_tables_are_of_the_logged_figures(script: ModuleType) -> None:
    stale = script.write_all_tables(check=True)
    assert not stale, f"run python scripts/make_tables.py: {stale} differ from docs/*.json"


def test_every_table_has_its_place(script: ModuleType) -> None:
    documents = script.list_documents()
    placed = {name for path in documents for _, name, *_ in script.BLOCK.findall(path.read_text())}
    assert placed == set(script.TABLES)


def scores(prec1: float) -> dict[str, Any]:
    return {
        "n": 8,
        "loss": 1.25,
        "prec1": prec1,
        "prec5": 90.0,
        "uar": prec1 - 1,
        "ece": 5.04,
        "intervals": {name: [prec1 - 6, prec1 + 6] for name in ("prec1", "prec5", "uar")},
        "labels": ["sad", "happy"],
        "confusion": [[3, 1], [0, 4]],
        "per_class": {
            "sad": {"recall": 75.0, "precision": 100.0},
            "happy": {"recall": 100.0, "precision": None},
        },
    }


def row(name: str, **settings: Any) -> dict[str, Any]:
    plain = {"fusion": "ia", "protocol": "tuned", "fold": None}
    rates = {"learning_rate": 0.002, "weight_decay": 0.05}
    best = {"epoch": 9, "validation_prec1": 61.25}
    shown = {"both": scores(70.0)}
    return {"name": name, **plain, **rates, "best": best, "scores": shown, **settings}


def test_tables_show_the_figures(load_script: Load) -> None:
    tables = load_script("tables")
    data = {
        "rows": [
            row("tuned-ia"),
            row("fold-1", fold=1, scores={"both": scores(60.0)}),
            row("fold-2", fold=2, scores={"both": scores(70.0)}),
            row("paper-ia", protocol="paper", learning_rate=0.04, weight_decay=1e-3),
            row("ablation-lr0.1-wd0.001", learning_rate=0.1, weight_decay=1e-3),
            row("voice-only", scores={"voice": scores(50.0)}),
            row("ia"),
        ]
    }
    models = tables.format_models(data).splitlines()
    assert "| `ia` | paper's Table 2, on RAVDESS | 2.393 | 33.958 | 98.125 |  |  |" in models
    assert (
        "| `ia` | `tuned`, encoder frozen | 1.250 | 70.00 (64.0 to 76.0) | 90.00 | "
        "69.00 (64.0 to 76.0) | 5.0 |"
    ) in models
    assert len(models) == 2 + 3 + 3  # heads, the paper's rows, ours
    assert "| voice-only model |  | 50.00 (44.0 to 56.0) |  |  |  |" in tables.format_feeds(data)
    folds = tables.format_folds(data).splitlines()
    assert folds[2] == "| 1 | 2, 5, 14, 15, 16 | 8 | 1.250 | 60.00 | 90.00 | 59.00 |"
    # 7.07 is the standard deviation of 60 and 70.
    assert folds[-1] == (
        "| mean ± standard deviation |  | 16 | 1.250 ± 0.000 | 65.00 ± 7.07 | 90.00 ± 0.00 | "
        "64.00 ± 7.07 |"
    )
    assert tables.format_ablation(data).splitlines()[2:] == [
        "| 0.04 | 61.2 / 70.0 (epoch 9) |",
        "| 0.1 | 61.2 / 70.0 (epoch 9) |",
    ]
    confusion = tables.format_confusion(data).splitlines()
    assert confusion[-2:] == [
        "| sad | **3** | 1 | 75.0 | 100.0 |",
        "| happy |  | **4** | 100.0 |  |",
    ]


def test_pixels_stand_beside_int8(load_script: Load) -> None:
    def compared(agreement: float, mean: float, **key: Any) -> dict[str, Any]:
        return {**key, "fusion": "it", "agreement": agreement, "mean_logit_difference": mean}

    engines = [
        compared(99.0, 0.01, target="onnx", precision="int8", modality="video"),
        compared(98.5, 0.02, target="openvino", precision="int8", modality="video"),
        compared(100.0, 1e-6, target="onnx", precision="fp32", modality="video"),
    ]
    draws = [compared(97.25 + i, 0.03 * i, draw=i, modality="video") for i in range(3)]
    table = load_script("engine_tables").format_pixels({"rows": engines, "pixels": draws})
    assert table.splitlines()[2:] == [
        "| `it` | video | 97.25 to 99.25 | 0.030 | 99.00 | 0.010 | 98.50 | 0.020 |"
    ]


def test_documents_are_filled_in_and_nothing_else(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    before = "Text.\n\n<!-- table: models -->\nold\n<!-- end: models -->\n\nMore.\n"
    readme = tmp_path / "README.md"
    readme.write_text(before)
    (tmp_path / "docs" / "new.md").write_text("<!-- table: gate -->\n<!-- end: gate -->\n")
    with pytest.raises(script.TableError, match=r"models\.json is missing.*table models"):
        script.write_all_tables(tmp_path, check=True)
    assert readme.read_text() == before
    (tmp_path / "docs" / "models.json").write_text(json.dumps({"rows": [row("tuned-ia")]}))
    assert script.write_all_tables(tmp_path, check=True) == [readme]
    assert readme.read_text() == before
    assert script.write_all_tables(tmp_path) == [readme]
    text = readme.read_text()
    assert text.startswith("Text.\n\n<!-- table: models -->\n\n| fusion | recipe |")
    assert text.endswith("|\n\n<!-- end: models -->\n\nMore.\n")
    assert "old" not in text
    assert script.write_all_tables(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- table: weather -->\n<!-- end: weather -->\n", "nothing makes the table weather"),
        ("<!-- table: answers -->\n<!-- end: answers -->\n", "can't be made from .*accuracy.json"),
        ("<!-- bench: benchmarks/results/mine.json -->\n<!-- /bench -->\n", "mine.json is missing"),
    ],
)
def test_tables_that_cannot_be_made(
    script: ModuleType, tmp_path: Path, text: str, error: str
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "accuracy.json").write_text('{"rows": [{}]}')
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(script.TableError, match=error):
        script.write_all_tables(tmp_path, check=True)


def test_check_from_the_command_line(script: ModuleType) -> None:
    assert CliRunner().invoke(script.main, ["--check"]).exit_code == 0
