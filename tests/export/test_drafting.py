"""A bundle's draft: takes its place at the end, or nothing of it is left."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mer_export import ExportOptions, ExportReport, export_bundle
from mer_export.drafting import check_replaceable, replacing
from mer_runtime.bundle import load_bundle
from mer_runtime.errors import MerError, OutputError

COMMAND = "from mer_export.cli import main; main()"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_draft_takes_the_place(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with replacing(tmp_path / "out") as draft:
            assert draft.parent == tmp_path
            (draft / "manifest.json").write_text(content)
        assert (tmp_path / "out" / "manifest.json").read_text() == content
        assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "out") as draft:
            (draft / "manifest.json").write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert (tmp_path / "out" / "manifest.json").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["out", "out[1]"])
def test_drafts_of_killed_exports_are_cleared(tmp_path: Path, name: str) -> None:
    stale = tmp_path / f".{name}.draft.killed"
    stale.mkdir()
    (stale / "encoder.onnx").write_bytes(b"half")
    other = tmp_path / ".another.draft.running"
    other.mkdir()
    with replacing(tmp_path / name):
        assert not stale.exists()
    assert names(tmp_path) == sorted([".another.draft.running", name])


def test_two_at_once(tmp_path: Path) -> None:
    with replacing(tmp_path / "out") as draft:
        (draft / "manifest.json").write_text("first")
        with (
            pytest.raises(OutputError, match="another export is writing it"),
            replacing(tmp_path / "out"),
        ):
            pytest.fail("both write")
        assert draft.is_dir(), "the second cleared the first one's draft"
        with replacing(tmp_path / "elsewhere"):
            pass
    assert (tmp_path / "out" / "manifest.json").read_text() == "first"


def test_somebodys_work_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    check_replaceable(tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").write_text("three years")
    with pytest.raises(OutputError, match="something else than a bundle"):
        check_replaceable(tmp_path / "out")
    with pytest.raises(OutputError, match="file of that name"):
        check_replaceable(tmp_path / "out" / "thesis.txt")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files end at ``size`` bytes: a write beyond fails as one to a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("target", "size"),
    [("onnx", 1_000_000), ("onnx", 10_000), ("openvino", 300_000), ("tensorrt", 1_000_000)],
)
def test_disk_full_in_the_middle(
    fitted: tuple[Path, Path], graphs_once: None, tmp_path: Path, target: Any, size: int
) -> None:
    checkpoint = fitted[0]
    with largest_file(size), pytest.raises(MerError) as caught:
        export_bundle(
            checkpoint,
            tmp_path / "out",
            ExportOptions(target=target, precision="fp32", timing=False),
        )
    assert len(str(caught.value)) > 20
    assert not names(tmp_path)
    report: ExportReport = export_bundle(
        checkpoint, tmp_path / "out", ExportOptions(precision="fp32", timing=False)
    )
    assert load_bundle(report.bundle).precision == "fp32"


def test_interrupt(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    """Ctrl-C once the draft is there: one line, exit 1, nothing left."""
    command = [sys.executable, "-c", COMMAND, str(fitted[0]), "--target", "openvino"]
    command += ["--precision", "fp32", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.glob(".out.draft.*")):
            time.sleep(0.01)
        process.send_signal(2)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert told.splitlines() == ["Error: interrupted"]
    assert not names(tmp_path)
