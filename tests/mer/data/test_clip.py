from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer.data.clip import read_recording
from mer.data.recording import Recording
from mer_runtime.errors import MediaError
from mer_runtime.spec import Spec

SPEC = Spec()
RATE = SPEC.audio.sample_rate


def record(path: Path, **fields: Any) -> Recording:
    return Recording(path.stem, path, fields.pop("audio_path", None), 1, 0, **fields)


@pytest.fixture
def long(make_clip: Callable[..., Path]) -> Path:
    """15 s; a click at 13 s, and white from then on."""
    return make_clip("long.mp4", seconds=15.0, fps=10, click_at=13.0, flash_at=13.0)


def test_a_part_is_as_if_cut_there(long: Path) -> None:
    window = read_recording(record(long, start=12.5, end=13.5), SPEC)
    assert window.waveform is not None
    assert window.frames is not None
    # The part of 1 s lies in the middle of the window of 3.6 s: from 1.3 to 2.3 s.
    heard = np.flatnonzero(np.abs(window.waveform) > 0.05) / RATE
    assert heard.min() == pytest.approx(1.8, abs=0.03)
    assert not window.waveform[: round(1.29 * RATE)].any()
    assert not window.waveform[round(2.31 * RATE) :].any()
    bright = window.frames[:, :60].mean(axis=(1, 2, 3)) > 180
    assert bright.tolist() == [False] * 7 + [True] * 8  # the middle frame is at 1.8 s
    for i in range(5):  # held: before the part there is nothing
        np.testing.assert_array_equal(window.frames[i], window.frames[5])


def test_a_long_part_is_a_window_of_its_middle(long: Path) -> None:
    window = read_recording(record(long, start=10.0), SPEC)  # its middle is 12.5 s
    assert window.waveform is not None
    heard = np.flatnonzero(np.abs(window.waveform) > 0.05) / RATE
    assert heard.min() == pytest.approx(1.8 + 0.5, abs=0.03)


def test_a_part_behind_the_end(long: Path) -> None:
    with pytest.raises(MediaError, match=r"ends at 15\.\d s, before 20 s"):
        read_recording(record(long, start=20.0), SPEC)


@pytest.mark.parametrize("own_sound", [True, False])
def test_a_voice_of_its_own(make_clip: Callable[..., Path], own_sound: bool) -> None:
    clip = make_clip("clip.mp4", click_at=0.5)
    voice = make_clip("voice.wav", click_at=1.5)
    window = read_recording(record(clip, audio_path=voice, own_sound=own_sound), SPEC)
    assert window.waveform is not None
    heard = np.flatnonzero(np.abs(window.waveform) > 0.05) / RATE
    assert heard.min() == pytest.approx(0.8 + (0.5 if own_sound else 1.5), abs=0.03)
