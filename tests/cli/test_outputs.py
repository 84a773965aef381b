"""What a command writes: never over what it reads, and tried before the work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click import Command
from click.testing import CliRunner

from mer.cli.evaluate import main as mer_eval
from mer_bench.command import main as mer_bench
from mer_runtime.cli import main as mer_run

MakeClip = Callable[..., Path]
#: A folder in which not even root can make a file.
READ_ONLY = Path("/proc/self")
BUNDLE = "ia-compact-int8"


def run(command: Command, *arguments: Any) -> Any:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def refused(command: Command, *arguments: Any) -> str:
    result = run(command, *arguments)
    assert result.exit_code == 1, result.output
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: can't write ")
    return line


@pytest.mark.parametrize("option", ["--overlay", "--json-out", "--record"])
@pytest.mark.parametrize("link", ["same", "symlink_to", "hardlink_to"])
def test_the_source_is_never_written(
    small_clip: Path, tmp_path: Path, option: str, link: str
) -> None:
    clip = Path(shutil.copy(small_clip, tmp_path / "clip.mp4"))
    before = clip.read_bytes()
    out = clip
    if link != "same":
        out = tmp_path / "other.mp4"
        getattr(out, link)(clip)
    more = ("--pace", "fast") if option == "--record" else ()
    assert "is the same file" in refused(mer_run, BUNDLE, clip, option, out, *more)
    assert clip.read_bytes() == before


def test_a_clip_of_the_folder_is_never_written(small_clip: Path, tmp_path: Path) -> None:
    clip = Path(shutil.copy(small_clip, tmp_path / "clip.mp4"))
    before = clip.read_bytes()
    assert "is the same file" in refused(mer_run, BUNDLE, tmp_path, "--json-out", clip)
    assert clip.read_bytes() == before


def test_two_outputs_in_one_file(small_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    refused(mer_run, BUNDLE, small_clip, "--overlay", out, "--json-out", out)
    assert not out.exists()


@pytest.mark.skipif(not READ_ONLY.is_dir(), reason="needs a folder that takes no file")
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (mer_run, (BUNDLE, "{clip}", "--overlay", "{no}/a.png")),
        (mer_run, (BUNDLE, "{folder}", "--overlay", "{no}/pictures")),
        (mer_run, (BUNDLE, "{clip}", "--json-out", "{no}/a.json")),
        (mer_run, (BUNDLE, "{clip}", "--pace", "fast", "--record", "{no}/a.mp4")),
        (mer_bench, (BUNDLE, "--clip", "{clip}", "--html", "{no}/a.html")),
        (mer_eval, ("ia", "{folder}", "--confusion", "{no}/a.png")),
    ],
)
def test_outputs_are_tried_before_the_work(
    small_clip: Path, command: Command, arguments: tuple[str, ...]
) -> None:
    names = {"clip": small_clip, "folder": small_clip.parent, "no": READ_ONLY}
    refused(command, *(argument.format(**names) for argument in arguments))


@pytest.mark.parametrize("jobs", [1, 2])
def test_overlays_lie_as_their_clips_do(make_clip: MakeClip, tmp_path: Path, jobs: int) -> None:
    """Two clips with one name have two pictures."""
    (tmp_path / "clips" / "deeper").mkdir(parents=True)
    for name in ("a.wav", "a.flac", "b.wav", "deeper/b.wav"):
        make_clip(f"clips/{name}", seconds=0.3)
    pictures = tmp_path / "pictures"
    result = run(mer_run, BUNDLE, tmp_path / "clips", "--overlay", pictures, "--jobs", jobs)
    assert result.exit_code == 0, result.stderr
    found = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    assert found == ["a.flac.png", "a.wav.png", "b.png", "deeper/b.png"]


def test_an_earlier_file_of_answers_is_replaced(small_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.json"
    out.write_text("earlier")
    assert run(mer_run, BUNDLE, small_clip, "--json-out", out).exit_code == 0
    assert json.loads(out.read_text())["source"] == str(small_clip)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.json"]
