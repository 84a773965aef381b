"""A timeline that reads sparingly answers as one that reads everything, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import Recognizer
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.sparing import SparingChoice
from mer_runtime.live.sources.captured import Picture, Sound
from mer_runtime.spec import Spec
from mer_runtime.stream.resampling import WindowResampler
from mer_runtime.timeline import reading
from mer_runtime.timeline.gathering import gather_sound

SLOT = Spec().video.slot


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load("ia-compact-int8")


@pytest.fixture
def clip(
    request: pytest.FixtureRequest, make_clip: Callable[..., Path], portrait: NDArray[Any]
) -> Path:
    sample: Path = request.getfixturevalue("sample_clip")
    if request.param == "sample":
        return sample
    spoken = read_window(sample, Spec()).waveform
    times = {"steady": np.arange(180) / 30, "leap": np.r_[0:2:0.04, 7:9:0.04]}.get(
        request.param, np.cumsum(np.random.default_rng(1).uniform(0.01, 0.3, 40))
    )
    return make_clip(
        "clip.mp4",
        size=(160, 160),
        picture=portrait,
        times=times,
        waveform=spoken,
        sample_rate=16_000,
        video_start=0.5 if request.param == "late" else 0.0,
    )


@pytest.mark.parametrize("clip", ["sample", "steady", "uneven", "late", "leap"], indirect=True)
def test_to_the_bit(clip: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> list[tuple[Any, ...]]:
        return [
            (e.start, e.end, e.track, e.box, e.faces_found, e.notes, *e.probabilities.values())
            for e in recognizer.timeline(clip, faces="all")
        ]

    sparing = answer()
    monkeypatch.setattr(SparingChoice, "needs", lambda self, packet: True)
    monkeypatch.setattr(WindowResampler, "_extend", lambda self, *given: None)
    monkeypatch.setattr(reading, "gather_sound", lambda items, seconds: items)
    assert sparing == answer()


def test_pictures_are_left_out(
    sample_clip: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[bool] = []
    ask = SparingChoice.needs

    def note(self: SparingChoice, packet: Any) -> bool:
        needed.append(ask(self, packet))
        return needed[-1]

    monkeypatch.setattr(SparingChoice, "needs", note)
    list(recognizer.timeline(sample_clip))
    assert needed.count(False) > len(needed) / 3


def chunk(time: float, samples: int = 160, track: int = 1) -> Sound:
    return Sound(np.full(samples, time, np.float32), 16_000, time, None, track)


def test_chunks_are_joined_where_they_follow_on_each_other() -> None:
    given = [chunk(i / 100) for i in range(60)]
    joined = list(gather_sound(given, SLOT))
    assert [len(one.samples) for one in joined if isinstance(one, Sound)] == [160, 3840, 3840, 1760]
    sounds = [one.samples for one in joined if isinstance(one, Sound)]
    np.testing.assert_array_equal(
        np.concatenate(sounds), np.concatenate([one.samples for one in given])
    )


@pytest.mark.parametrize("later", [chunk(0.04), chunk(0.02, track=2)])
def test_gap_and_another_track_begin_anew(later: Sound) -> None:
    joined = list(gather_sound([chunk(0.0), chunk(0.01), later, chunk(9.0)], SLOT))
    assert [one.time for one in joined] == [0.0, 0.01, later.time, 9.0]


def test_sound_does_not_lag_behind_the_picture() -> None:
    picture = Picture(None, 1.2)
    joined = list(gather_sound([chunk(0.0), chunk(0.01), picture, chunk(0.02)], SLOT))
    assert [one.time for one in joined] == [0.0, 0.01, 1.2, 0.02]
