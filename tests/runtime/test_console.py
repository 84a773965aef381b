"""What commands print is text, whatever names, labels and terminals are like."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mer_runtime import MerError, options
from mer_runtime.console import Command, escape, escape_name, say

#: Clears a terminal, sets its title, turns text around, and a byte that is no UTF-8.
HOSTILE = "a\x1b[2J\x1b]0;title\x07\u202eb\udce9\x9b1m"
SHOWN = r"a\x1b[2J\x1b]0;title\x07\u202eb\xe9\x9b1m"


def test_escapes() -> None:
    assert escape(HOSTILE) == SHOWN
    assert escape("a\tb\nc") == "a\tb\nc"
    assert escape_name("a\tb\nc") == r"a\tb\nc"
    for text in ("表 é 👩\u200d💻 ñ", "C:\\x1b"):
        assert escape(text) == text


@click.command(cls=Command)
@click.argument("name")
@click.option("--fault", type=click.Choice(["mer", "usage", "log"]))
@options.common
def command(name: str, fault: str | None) -> None:
    if fault == "mer":
        raise MerError(f"{name}: wrong")
    if fault == "usage":
        raise click.UsageError(f"{name}: wrong")
    if fault == "log":
        logging.getLogger("mer_runtime.test").warning("%s: wrong", name)
    say(f"{name}: right")


@pytest.mark.parametrize("options_", [[], ["--fault", "mer"], ["--fault", "usage"]])
def test_commands_print_text(options_: list[str]) -> None:
    result = CliRunner().invoke(command, [HOSTILE, *options_])
    assert SHOWN in result.output
    assert "\x1b" not in result.output
    assert "\x9b" not in result.output


def test_arguments_that_are_too_many() -> None:
    result = CliRunner().invoke(command, ["a", HOSTILE])
    assert result.exit_code == 2
    assert SHOWN in result.output


def test_what_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest keeps records for its report, and its workers can't send what is no text.
    monkeypatch.setattr(logging.getLogger("mer_runtime"), "propagate", False)
    result = CliRunner().invoke(command, [HOSTILE, "--fault", "log"])
    assert f"WARNING mer_runtime.test: {SHOWN}: wrong" in result.stderr


@pytest.mark.parametrize(
    ("encoding", "bar"), [("latin-1", "##"), ("ascii", "##"), ("utf-8", "██"), ("cp437", "██")]
)
def test_terminal_without_a_sign(encoding: str, bar: str) -> None:
    code = "from mer_runtime.console import say; say('██ \\u8868 \\udce9')"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    shown = done.stdout.decode(encoding)
    character = "表" if encoding == "utf-8" else r"\u8868"
    assert shown.strip() == rf"{bar} {character} \xe9"


def test_clip_of_a_name_that_is_no_text(small_clip: Path, tmp_path: Path) -> None:
    """A Latin-1 name in a UTF-8 system: the folder's other clips are answered as well."""
    from mer_runtime.cli import main

    for name in ("caf\udce9.mp4", "red\x1b[31m.mp4", "plain.mp4"):
        (tmp_path / name).write_bytes(small_clip.read_bytes())
    result = CliRunner().invoke(main, ["ia-int8", str(tmp_path)])
    assert result.exit_code == 0, result.output
    answers = [line for line in result.stdout.splitlines() if "%" in line]
    assert [Path(line.split(": ")[0]).name for line in answers] == [
        r"caf\xe9.mp4",
        "plain.mp4",
        r"red\x1b[31m.mp4",
    ]


@click.command(cls=Command)
@click.argument("source")
@click.option("--file", type=click.Path(path_type=Path), multiple=True)
def paths(source: str, file: tuple[Path, ...]) -> None:
    assert "://" in source or not Path(source).is_file()
    assert not any(one.is_file() for one in file)


@pytest.mark.parametrize("name", ["a" * 300, "/tmp/" + "a" * 300, "a\0b", "a/" * 3000])
@pytest.mark.parametrize("place", ["argument", "option"])
def test_names_that_no_file_can_have(name: str, place: str) -> None:
    arguments = [name] if place == "argument" else ["here", "--file", "there", "--file", name]
    done = CliRunner().invoke(paths, arguments)
    assert done.exit_code == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert len(errors[0]) < 300


@pytest.mark.parametrize("name", ["nowhere", "nowhere/below", "http://host/" + "a" * 5000])
def test_names_that_a_file_could_have(name: str) -> None:
    assert CliRunner().invoke(paths, [name, "--file", "nowhere"]).exit_code == 0
