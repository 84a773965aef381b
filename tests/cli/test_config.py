"""``mer-run --config FILE``: a file's options are the command line's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mer_runtime.cli import main
from mer_runtime.cli.config import NOT_IN_FILE


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A function that runs ``mer-run`` with a file of this content."""

    def call(content: str | bytes, *arguments: object) -> Any:
        file = tmp_path / "mer.toml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CliRunner().invoke(main, ["--config", str(file), *map(str, arguments)])

    return call


def read_lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_file_has_all_that_is_needed(run: Any, sample_clip: Path) -> None:
    result = run(
        f'bundle = "ia-compact-int8"\nsource = "{sample_clip}"\nthreads = 1\njson = true\n'
        'pace = "fast"\nhop = 0.96\naudio = false\nfaces = "all"\n'
    )
    assert result.exit_code == 0, result.stderr
    answers = [line for line in read_lines(result.stdout) if "label" in line]
    assert [answer["time"] for answer in answers[:3]] == [0.96, 1.92, 2.88]
    assert not any(answer["voice"] for answer in answers)


def test_command_line_goes_before_it(run: Any, sample_clip: Path) -> None:
    result = run(
        f'bundle = "nothing"\nsource = "{sample_clip}"\nhop = 0.96\npace = "fast"\njson = true\n',
        *("ia-compact-int8", sample_clip, "--hop", "1.92", "--threads", "1"),
    )
    assert result.exit_code == 0, result.stderr
    answers = [line for line in read_lines(result.stdout) if "label" in line]
    assert answers[0]["time"] == 1.92


def test_every_option_can_be_given(run: Any) -> None:
    """With a value of the wrong kind each is known by its name, and refused."""
    for one in main.params:
        name = one.name if isinstance(one, click.Argument) else max(one.opts, key=len)[2:]
        result = run(f"{name} = [1]\n")
        assert result.exit_code == 2
        known = name not in NOT_IN_FILE
        expected = f"{name} is " if known else f"there is no option {name}"
        assert expected in result.stderr, name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hopp = 1", "there is no option hopp; hop?"),
        ("hop = true", "hop is a number, not True"),
        ("keep = 1.5", "keep is a whole number, not 1.5"),
        ("wait = 1", "wait is true or false, not 1"),
        ("record = false", "record is text, not False"),
        ("[live]\nhop = 1", "there is no option live"),
        ("hop = ", "Invalid value"),
        (b"\xff", "can't decode"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        (
            'bundle = "ia-int8"\nsource = "0"\nhop = 0.96\nfaces = "none"',
            "'none' is not one of",
        ),
        ('bundle = "ia-compact-int8"\nsource = "x.mp4"\nhop = 0.96', "--hop is for streams"),
        ("hop = 1", "Missing argument 'BUNDLE'"),
    ],
)
def test_what_does_not_fit(run: Any, content: str | bytes, words: str) -> None:
    result = run(content)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert words in result.stderr


def test_device_by_its_number_or_by_default(run: Any) -> None:
    """``camera = 77`` is a number, as people write it; ``microphone = true`` is the default's."""
    result = run('bundle = "ia-compact-int8"\ncamera = 77\nmicrophone = true\nthreads = 1\n')
    assert result.exit_code == 1
    assert "/dev/video77: there is no such camera" in result.stderr or (
        "microphone default: can't be opened" in result.stderr
    )


def test_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "x.toml")])
    assert result.exit_code == 2
    assert "x.toml: No such file or directory" in result.stderr
