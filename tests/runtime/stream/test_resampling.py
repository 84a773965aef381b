"""Windows that overlap are resampled as each alone would be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.waveform import MARGIN, cut_window
from mer_runtime.spec import AudioSpec
from mer_runtime.stream import resampling
from mer_runtime.stream.audio_ring import NativeWindow
from mer_runtime.stream.resampling import WindowResampler

SPEC = AudioSpec()
SECONDS = SPEC.samples / SPEC.sample_rate


def cut(sound: NDArray[np.float32], rate: int, start: float) -> NativeWindow:
    first = round(start * rate)
    length = round((SECONDS + 2 * MARGIN) * rate)
    return NativeWindow(sound[first : first + length].copy(), rate, None, first)


def noise(rate: int) -> NDArray[np.float32]:
    return np.random.default_rng(rate).normal(0, 0.1, 8 * rate).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_to_the_bit(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, resampler = noise(rate), WindowResampler(SPEC)
    whole: list[int] = []

    def cut_whole(native: NDArray[np.float32], *given: int) -> NDArray[np.float32]:
        whole.append(len(native))
        return cut_window(native, *given)

    monkeypatch.setattr(resampling, "cut_window", cut_whole)
    for start in (0.0, 0.48, 0.96, 1.2):
        window = cut(sound, rate, start)
        alone = window.waveform(SPEC.samples, SPEC.sample_rate)
        np.testing.assert_array_equal(resampler.waveform(window), alone)
    assert len(whole) == 1


@pytest.mark.parametrize("rate", [47_999, SPEC.sample_rate])
def test_where_steps_do_not_meet(rate: int) -> None:
    sound, resampler = noise(rate), WindowResampler(SPEC)
    for start in (0.0, 0.48):
        window = cut(sound, rate, start)
        alone = window.waveform(SPEC.samples, SPEC.sample_rate)
        np.testing.assert_array_equal(resampler.waveform(window), alone)


@pytest.mark.parametrize("change", ["late sound", "another rate", "back", "far ahead"])
def test_what_changed_meanwhile(change: str) -> None:
    rate = 48_000
    sound, resampler = noise(rate), WindowResampler(SPEC)
    resampler.waveform(cut(sound, rate, 1.0))
    start = {"back": 0.52, "far ahead": 4.0}.get(change, 1.48)
    if change == "late sound":
        sound[2 * rate : 2 * rate + 100] = 0
    if change == "another rate":
        rate = 44_100
    window = cut(sound, rate, start)
    alone = window.waveform(SPEC.samples, SPEC.sample_rate)
    np.testing.assert_array_equal(resampler.waveform(window), alone)
