"""The example notebook, run from its first cell to its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def read_output(cell: Any) -> str:
    texts = [out.get("text", "") for out in cell.outputs if out.output_type == "stream"]
    results = [out.data.get("text/plain", "") for out in cell.outputs if "data" in out]
    return "".join([*texts, *results])


@pytest.fixture(scope="module")
def notebook() -> Any:
    """Executed; an error in a cell fails whoever asks for it."""
    book = nbformat.read(FOLDER / "notebook.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in book.cells), "commit it without outputs"
    where = {"metadata": {"path": str(FOLDER)}}
    return NotebookClient(book, timeout=500, kernel_name="python3", resources=where).execute()


def find(notebook: Any, text: str) -> Any:
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and text in c.source)
    return cell


def test_it_shows_answers_progress_and_errors(notebook: Any) -> None:
    assert read_output(find(notebook, "plt.subplots")).startswith("<Figure")
    assert read_output(find(notebook, "nowhere.mp4")).startswith("MediaError - nowhere.mp4: ")
    prepared = read_output(find(notebook, "prepare_cache(corpus"))
    assert prepared.startswith("1 of 2\n2 of 2\n")
    assert prepared.endswith("(2, 2, 2)")
    assert read_output(find(notebook, "evaluate_model(")).startswith("2 of 2\n")
    exported = read_output(find(notebook, "export_bundle("))
    assert exported.endswith("True")


def test_our_logs_come_through_logging(notebook: Any) -> None:
    errors = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    told = "".join(out.text for out in errors if out.get("name") == "stderr")
    assert "mer.data.preparation: " in told
