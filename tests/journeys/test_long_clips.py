"""A newcomer has a long clip, and wants to know what happens when."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from mer_runtime import Recognizer, write_timeline
from mer_runtime.cli import main
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import Spec


@pytest.fixture
def long_clip(
    make_clip: Callable[..., Path], sample_clip: Path, portrait: NDArray[np.uint8]
) -> Path:
    """A face and a voice for 12.6 s, at ten pictures a second."""
    spoken = read_window(sample_clip, Spec()).waveform
    assert spoken is not None
    return make_clip(
        "long.mkv",
        size=(320, 320),
        picture=portrait,
        times=np.arange(126) / 10,
        waveform=np.tile(spoken, 4)[: round(12.6 * 16_000)],
        sample_rate=16_000,
    )


def run(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["ia-int8", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_answer_names_its_window_and_hints_at_the_rest(long_clip: Path) -> None:
    told = json.loads(run(long_clip, "--json"))
    assert told["end"] - told["start"] == pytest.approx(3.6)
    assert told["start"] == pytest.approx(4.5, abs=0.1)
    assert "--timeline" in told["notes"][-1]
    assert f" at {told['start']:.1f} to {told['end']:.1f} s" in run(long_clip)


def test_in_python(long_clip: Path) -> None:
    timeline = Recognizer.load("ia-int8").timeline(long_clip)
    answers = list(timeline)
    ends = np.array([answer.end for answer in answers])
    np.testing.assert_allclose(np.diff(ends)[:-1], 0.48, atol=1e-6)
    assert ends[-1] == pytest.approx(12.6, abs=0.25)
    starts = [answer.start for answer in answers]
    np.testing.assert_allclose(starts, np.maximum(ends - 3.6, 0), atol=1e-6)
    assert timeline.summary.face.seconds == pytest.approx(ends[-1], abs=1e-6)
    assert sum(timeline.summary.all.shares().values()) == pytest.approx(1)


def test_ahead_or_not_the_answers_are_the_same_windows(long_clip: Path, tmp_path: Path) -> None:
    """With an overlay nothing runs ahead, and every frame is looked at."""
    recognizer = Recognizer.load("ia-int8")
    ahead = list(recognizer.timeline(long_clip))
    plain = list(recognizer.timeline(long_clip, overlay=tmp_path / "whole.mp4"))
    assert [a.end for a in ahead] == [p.end for p in plain]
    for one, other in zip(ahead, plain, strict=True):
        shares = [list(event.probabilities.values()) for event in (one, other)]
        np.testing.assert_allclose(*shares, atol=0.1)  # faces are followed, or looked for
    with av.open(str(tmp_path / "whole.mp4")) as film:
        times = [float(frame.time) for frame in film.decode(video=0)]
    assert times[-1] == pytest.approx(12.6, abs=0.2)
    assert {p.name for p in tmp_path.iterdir()} == {"whole.mp4", long_clip.name}


def test_on_the_command_line(long_clip: Path, tmp_path: Path) -> None:
    told = run(long_clip, "--timeline", tmp_path / "answers.csv")
    assert "of the time" in told
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert sum(float(rows[-1][name]) for name in list(rows[0])[8:]) == pytest.approx(1, abs=1e-4)
    run(long_clip, "--timeline", tmp_path / "answers.png", "--faces", "all")
    picture = cv2.imread(str(tmp_path / "answers.png"))
    assert picture.shape[1] == 1400
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_of_a_folder(sample_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "b.mp4").write_bytes(sample_clip.read_bytes())
    (tmp_path / "in" / "letter.mp4").write_text("Dear reader")
    out = tmp_path / "out.json"
    done = CliRunner().invoke(main, ["ia-int8", str(tmp_path / "in"), "--timeline", str(out)])
    assert done.exit_code == 1
    assert "letter.mp4: " in done.stderr
    written = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.json")]
    assert written == ["out/sub/b.json"]
    content = json.loads((tmp_path / "out" / "sub" / "b.json").read_text())
    assert len(content["answers"]) == content["summary"]["answers"] == 9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--timeline", "x.txt"), "--timeline must end in .csv, .json or .png"),
        (("--timeline", "x.csv", "--overlay", "x.png"), "must end in .mp4"),
        (("--hop", "0.48"), "--hop is for streams and for --timeline"),
        (("--timeline", "x.csv", "--pace", "fast"), "--timeline is for clips"),
    ],
)
def test_what_does_not_go_together(
    sample_clip: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(main, ["ia-int8", str(sample_clip), *arguments])
    assert done.exit_code == 2
    assert said in done.stderr


def test_nothing_half_written_stays(tmp_path: Path, long_clip: Path) -> None:
    recognizer = Recognizer.load("ia-int8")
    with recognizer.timeline(long_clip, overlay=tmp_path / "film.mp4") as timeline:
        next(timeline)
    with pytest.raises(Exception, match="there is no such file"):
        write_timeline(tmp_path / "x.csv", recognizer.timeline(tmp_path / "none.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == [long_clip.name]
