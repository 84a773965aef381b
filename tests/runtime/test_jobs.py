"""Clips answered by several processes: in order, once each, whatever becomes of a process."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mer_runtime import Recognizer
from mer_runtime.cli import main
from mer_runtime.console import show_logs
from mer_runtime.errors import BundleError, MediaError, MerError
from mer_runtime.jobs import answer_in_parallel, work_in_parallel
from mer_runtime.prediction import Analysis

MakeClip = Callable[..., Path]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def load(bundle: Path) -> Recognizer:
    return Recognizer.load(bundle, threads=1)


def cannot_load() -> Recognizer:
    raise BundleError("x", "can't be loaded")


def work(recognizer: Recognizer, analysis: Analysis, lives: Path) -> tuple[str, int]:
    """The clip's name and the process; of "dies", the process dies while ``lives`` has a file."""
    name = Path(analysis.prediction.source).stem
    left = sorted(lives.glob("*")) if name == "dies" else []
    if left:
        left[0].unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return name, os.getpid()


def nothing() -> int:
    logging.getLogger("mer_runtime.test").info("loaded")
    return 0


def work_last(loaded: int, item: str, folder: Path) -> tuple[str, int]:
    """Of "dies", the first process dies when the other has nothing left to do."""
    if item == "dies" and not (folder / "died").exists():
        while not (folder / "finished").exists():
            time.sleep(0.01)
        (folder / "died").touch()
        time.sleep(0.2)  # for the other's answer to be read
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "quick":
        (folder / "finished").touch()
    return item, os.getpid()


def fail(loaded: int, item: str) -> Any:
    if item == "raises":
        raise ZeroDivisionError("by nothing")
    if item == "swells":
        raise MemoryError
    return (lambda: item) if item == "can't be sent" else item


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes import this module by its name, wherever the tests were started."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])


@pytest.fixture
def clips(make_clip: MakeClip) -> list[Path]:
    """Sound alone: quickly made and answered."""
    return [make_clip(f"{name}.wav", seconds=0.3) for name in ("a", "b", "dies", "d", "e")]


def lives(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).touch()
    return folder


def test_in_order_and_loaded_once(bundle: Path, clips: list[Path], tmp_path: Path) -> None:
    told = partial(work, lives=lives(tmp_path / "lives", 0))
    found = list(answer_in_parallel(clips, 2, partial(load, bundle), told))
    assert [one.item for one in found] == clips
    assert [one.value[0] for one in found] == ["a", "b", "dies", "d", "e"]
    assert len({one.value[1] for one in found}) <= 2
    assert os.getpid() not in {one.value[1] for one in found}


@pytest.mark.parametrize("deaths", [1, 2])
def test_killed_process(bundle: Path, clips: list[Path], tmp_path: Path, deaths: int) -> None:
    told = partial(work, lives=lives(tmp_path / "lives", deaths))
    found = list(answer_in_parallel(clips, 2, partial(load, bundle), told))
    assert [one.item for one in found] == clips, "nothing lost, nothing twice"
    assert [one.item.stem for one in found if one.error] == ["dies"] * (deaths == 2)
    if deaths == 2:
        assert "died (code -9), twice" in str(found[2].error)


def test_bundle_that_cannot_be_loaded(clips: list[Path], tmp_path: Path) -> None:
    told = partial(work, lives=tmp_path)
    with pytest.raises(MerError, match="can't be loaded"):
        list(answer_in_parallel(clips, 2, cannot_load, told))


def test_command(bundle: Path, clips: list[Path]) -> None:
    folder = clips[0].parent
    (folder / "c.wav").write_text("not sound")
    alone, together = (
        run(bundle, folder, "--json", "--threads", 1, "--jobs", jobs) for jobs in (1, 2)
    )
    assert (alone.exit_code, together.exit_code) == (1, 1)

    def answers(result: Any) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    assert answers(together) == answers(alone)
    assert sum("error" in line for line in answers(together)) == 1


def test_pictures_and_one_warning(
    bundle: Path, make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MER_FACE_DETECTOR", "haar")  # the model was trained on YuNet's
    (tmp_path / "clips").mkdir()
    for name in "ab":
        make_clip(f"clips/{name}.mp4", seconds=0.3)
    options = "--overlay", tmp_path / "pictures", "--jobs", 2, "--threads", 1
    result = run(bundle, tmp_path / "clips", *options)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["a.png", "b.png"]
    assert result.stderr.count("Warning:") == 1


def test_process_killed_at_the_end(tmp_path: Path) -> None:
    """The other, idle by then, takes its item."""
    told = partial(work_last, folder=tmp_path)
    found = [one.value for one in work_in_parallel(["dies", "quick"], 2, nothing, told)]
    assert [item for item, _ in found] == ["quick", "dies"]
    assert len({process for _, process in found}) == 1


def test_any_exception_is_the_item_s_own() -> None:
    items = ["a", "raises", "swells", "can't be sent", "b"]
    found = {one.item: one for one in work_in_parallel(items, 1, nothing, fail)}
    assert [found[item].value for item in "ab"] == ["a", "b"]
    assert str(found["raises"].error) == "ZeroDivisionError: by nothing"
    assert "MemoryError" in str(found["swells"].error)
    assert "local object" in str(found["can't be sent"].error)  # as every Python says it


def test_error_of_a_clip_is_of_its_class(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "a.wav").write_text("not sound")
    told = partial(work, lives=tmp_path)
    (found,) = answer_in_parallel([tmp_path / "a.wav"], 1, partial(load, bundle), told)
    assert isinstance(found.error, MediaError)
    assert found.error.source == str(tmp_path / "a.wav")


@pytest.mark.parametrize(("level", "seen"), [("info", 1), ("warning", 0)])
def test_processes_log_as_the_command(
    capfd: pytest.CaptureFixture[str], level: str, seen: int
) -> None:
    with show_logs(level):
        list(work_in_parallel(["a"], 1, nothing, fail))
    assert capfd.readouterr().err.count("INFO mer_runtime.test: loaded") == seen
