"""Options that all commands share: one name for one thing."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mer_runtime import __version__
from mer_runtime.cli import main as run_main
from mer_runtime.console import PACKAGES

COMMANDS = {
    "mer-prepare": "mer.cli.prepare",
    "mer-pretrain": "mer.cli.pretrain",
    "mer-train": "mer.cli.train",
    "mer-eval": "mer.cli.evaluate",
    "mer-export": "mer_export.cli",
    "mer-run": "mer_runtime.cli",
    "mer-doctor": "mer_runtime.cli.doctor",
    "mer-bench": "mer_bench.command",
}


def load(command: str) -> click.Command:
    found: click.Command = importlib.import_module(COMMANDS[command]).main
    return found


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(run_main, [str(a) for a in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_version(command: str) -> None:
    result = CliRunner().invoke(load(command), ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"{command}, version {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_them(command: str) -> None:
    names = {name for parameter in load(command).params for name in parameter.opts}
    assert {"--json", "--json-out", "--log-level", "-v", "--version"} <= names


def test_same_option_has_the_same_shape() -> None:
    """A flag in one command takes no value in another; a metavar is the same everywhere."""
    shapes: dict[str, set[tuple[bool, str | None]]] = {}
    for command in COMMANDS:
        for parameter in load(command).params:
            if isinstance(parameter, click.Option):
                for name in ("--json", "--json-out", "--labels", "--threads", "--face-detector"):
                    if name in parameter.opts:
                        shape = (parameter.is_flag, parameter.metavar)
                        shapes.setdefault(name, set()).add(shape)
    assert set(shapes) == {"--json", "--json-out", "--labels", "--threads", "--face-detector"}
    assert all(len(found) == 1 for found in shapes.values()), shapes


def test_json_in_a_file_leaves_the_text(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run(bundle, "--self-test", "--json-out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Self-test passed")
    assert json.loads(out.read_text("utf-8"))["passed"] is True
    both = run(bundle, "--self-test", "--json", "--json-out", out)
    assert json.loads(both.stdout) == json.loads(out.read_text("utf-8"))


def test_json_of_a_folder_in_a_file(bundle: Path, sample_clip: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "a.mp4").write_bytes(sample_clip.read_bytes())
    (clips / "b.mp4").write_text("no film")
    out = tmp_path / "out.jsonl"
    result = run(bundle, clips, "--json-out", out)
    assert result.exit_code == 1
    assert "a.mp4: " in result.stdout
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [Path(line["source"]).name for line in lines] == ["a.mp4", "b.mp4"]
    assert "error" in lines[1]


@pytest.mark.parametrize("place", ["nowhere/out.json", "."])
def test_file_that_cannot_be_written(
    bundle: Path, sample_clip: Path, tmp_path: Path, place: str
) -> None:
    result = run(bundle, sample_clip, "--json-out", tmp_path / place)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: can't write {tmp_path / place}: ")


def test_log_level(bundle: Path, sample_clip: Path) -> None:
    quiet = run(bundle, sample_clip)
    assert "INFO" not in quiet.stderr
    told = run(bundle, sample_clip, "-v", "info").stderr
    assert "INFO mer_runtime.proof.choice: onnxruntime " in told
    assert "self-test" in told
    assert "INFO mer_runtime.model: faces are found by yunet" in told
    assert all(not logging.getLogger(name).handlers for name in PACKAGES)


class TestNamesOfWhatShips:
    def test_checkpoint_is_no_bundle(self, sample_clip: Path) -> None:
        result = run("ia", sample_clip)
        assert result.exit_code == 1
        assert (
            result.stderr
            == "Error: ia: this is a checkpoint, and no bundle: its bundle is ia-int8\n"
        )

    def test_checkpoint_without_a_bundle(self, sample_clip: Path) -> None:
        (line,) = run("lt", sample_clip).stderr.splitlines()
        assert line.endswith("make a bundle of it with mer-export lt")

    def test_bundle(self) -> None:
        result = run("ia-int8", "--self-test")
        assert result.exit_code == 0, result.output
