"""One table in three formats."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from mer_runtime.errors import OutputError
from mer_runtime.tables import Figure, Table, to_csv, to_latex, to_markdown, write_tables

TABLES: list[Table] = [
    Table(
        "Accuracy",
        [
            {"model": "ia_1", "prec1, %": Figure(75.8333, (70.0, 80.8)), "Δprec1": None, "n": 240},
            {
                "model": "a|b",
                "prec1, %": Figure(75.0, (69.1, 80.0)),
                "Δprec1": Figure(-0.8333, (-2.5, 0.8), signed=True),
                "n": 240,
            },
        ],
        "240 clips.",
    ),
    Table(
        "Recall", [{"model": "ia_1", "sad": Figure(50, digits=0)}, {"model": "a|b", "sad": None}]
    ),
]


def test_markdown() -> None:
    assert to_markdown(TABLES) == (
        "**Accuracy**\n\n"
        "| model | prec1, % | Δprec1 | n |\n"
        "| --- | --- | --- | --- |\n"
        "| ia_1 | 75.83 (70.0 to 80.8) | - | 240 |\n"
        "| a\\|b | 75.00 (69.1 to 80.0) | -0.83 (-2.5 to +0.8) | 240 |\n\n"
        "240 clips.\n\n"
        "**Recall**\n\n"
        "| model | sad |\n| --- | --- |\n| ia_1 | 50 |\n| a\\|b | - |\n"
    )


def test_latex_escapes_and_needs_no_package() -> None:
    text = to_latex(TABLES)
    assert r"model & prec1, \% & $\Delta$prec1 & n \\" in text
    assert r"ia\_1 & 75.83 (70.0--80.8) & - & 240 \\" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert "% Accuracy. 240 clips." in text


def test_csv_has_figures_whole_and_bounds_in_columns() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(TABLES))))
    assert [row["model"] for row in rows] == ["ia_1", "a|b"]
    assert float(rows[0]["prec1, %"]) == 75.8333
    assert (rows[1]["Δprec1 low"], rows[1]["Δprec1 high"]) == ("-2.5", "0.8")
    assert rows[0]["Δprec1"] == rows[0]["Δprec1 low"] == ""
    assert (rows[0]["sad"], rows[1]["sad"]) == ("50", "")


def test_file_by_its_suffix(tmp_path: Path) -> None:
    write_tables(tmp_path / "out.TEX", TABLES)
    assert (tmp_path / "out.TEX").read_text("utf-8") == to_latex(TABLES)
    with pytest.raises(OutputError, match=r"ends with \.md, \.csv, \.tex"):
        write_tables(tmp_path / "out.xlsx", TABLES)
    assert [path.name for path in tmp_path.iterdir()] == ["out.TEX"]
