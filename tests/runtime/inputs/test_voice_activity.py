"""What is a voice, and what isn't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.voice_activity import hears_voice, measure_voice
from mer_runtime.inputs.waveform import resample
from mer_runtime.spec import Spec

RATE = 16_000
WINDOW = 57_600
Waveform = NDArray[np.float32]
TICKS = np.arange(WINDOW) / RATE


@pytest.fixture(scope="module")
def voice(sample_clip: Path) -> Waveform:
    """The sample's synthesised voice, (57600,)."""
    waveform = read_window(sample_clip, Spec()).waveform
    assert waveform is not None
    return waveform


def noise(level: float, seed: int = 0) -> Waveform:
    """White noise of so many dBFS."""
    drawn = np.random.default_rng(seed).standard_normal(WINDOW)
    return (10 ** (level / 20) * drawn).astype(np.float32)


def hum(hertz: float, peak: float) -> Waveform:
    """Mains: a fundamental and its first fifteen harmonics."""
    phases = np.random.default_rng(7).uniform(0, 6, 15)
    parts = [np.sin(2 * np.pi * hertz * k * TICKS + p) / k for k, p in enumerate(phases, start=1)]
    total = np.sum(parts, axis=0)
    return np.asarray(peak * total / np.abs(total).max(), np.float32)


def quantise(waveform: Waveform, bits: int = 16) -> Waveform:
    scale = 2 ** (bits - 1)
    return (np.rint(waveform * scale) / scale).astype(np.float32)


def pink(level: float) -> Waveform:
    spectrum = np.fft.rfft(noise(0)) / np.sqrt(np.maximum(np.arange(WINDOW // 2 + 1), 1))
    drawn = np.fft.irfft(spectrum, WINDOW)
    return np.asarray(10 ** (level / 20) * drawn / drawn.std(), np.float32)


def fan() -> Waveform:
    """Air and blades, swelling a little once a second."""
    return (pink(-40) * (1 + 0.3 * np.sin(2 * np.pi * TICKS)) + hum(140, 0.005)).astype(np.float32)


def taps() -> Waveform:
    """A keyboard: twenty bursts without a pitch."""
    at = np.random.default_rng(3).uniform(0, 3.6, 20)
    decay = sum(np.exp(-200 * np.maximum(TICKS - t, 0)) * (t <= TICKS) for t in at)
    return (noise(-14) * decay + noise(-80, 1)).astype(np.float32)


ABSENT = {
    "silence": np.zeros(WINDOW, np.float32),
    "last bit": (np.random.default_rng(1).integers(-1, 2, WINDOW) / 32_768).astype(np.float32),
    "last bit, one side": (np.random.default_rng(1).integers(0, 2, WINDOW) / 32_768).astype(
        np.float32
    ),
    "white, -70 dBFS": noise(-70),
    "white, -70 dBFS in 16 bits": quantise(noise(-70)),
    "loud white": noise(-20),
    "pink": pink(-40),
    "50 Hz": hum(50, 0.05) + noise(-80),
    "60 Hz, loud": hum(60, 0.7),
    "hum that is switched on": (hum(50, 0.1) * (TICKS > 1.5) + noise(-80)).astype(np.float32),
    "two seconds of hum": np.pad(hum(50, 0.1)[:32_000], (12_800, 12_800)),
    "fan": fan(),
    "keyboard": taps(),
    "steady tone": (0.5 * np.sin(2 * np.pi * 440 * TICKS)).astype(np.float32),
    "constant": np.full(WINDOW, 0.3, np.float32),
}


@pytest.mark.parametrize("name", ABSENT)
def test_no_voice(name: str) -> None:
    assert not hears_voice(ABSENT[name], RATE)


def test_voice(voice: Waveform) -> None:
    assert measure_voice(voice, RATE) > 1.0
    assert not hears_voice(np.zeros(0, np.float32), RATE)
    assert not hears_voice(voice[:700], RATE)  # too short to tell
    assert hears_voice(np.pad(voice[20_000:36_000], (41_600, 0)), RATE)  # a stream's first second


@pytest.mark.parametrize("decibels", [-60, -40, -20, 20])
def test_level_does_not_matter_while_it_is_heard(voice: Waveform, decibels: int) -> None:
    scaled = quantise(np.clip(voice * 10 ** (decibels / 20), -1, 1).astype(np.float32))
    assert hears_voice(scaled, RATE)


def test_a_voice_under_the_last_bit_is_none(voice: Waveform) -> None:
    assert not hears_voice((voice * np.float32(1e-6)).astype(np.float32), RATE)


@pytest.mark.parametrize("ratio", [10, 0])
def test_voice_in_noise(voice: Waveform, ratio: int) -> None:
    loudness = 10 * np.log10(np.mean(voice**2))
    for made in (pink, noise):
        assert hears_voice((voice + made(loudness - ratio)).astype(np.float32), RATE)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_any_rate(voice: Waveform, rate: int) -> None:
    heard = measure_voice(resample(voice, RATE, rate), rate)
    assert heard == pytest.approx(measure_voice(voice, RATE), rel=0.1)
    assert not hears_voice(resample(noise(-70), RATE, rate), rate)
    assert not hears_voice(resample(hum(50, 0.1), RATE, rate), rate)


def test_it_must_rise_and_fall(syllables: Callable[..., NDArray[np.float64]]) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 200 * TICKS) + 0.3 * np.sin(2 * np.pi * 600 * TICKS)
    assert hears_voice((tone * syllables(TICKS)).astype(np.float32), RATE)
    assert not hears_voice(tone.astype(np.float32), RATE)


@pytest.mark.corpus
def test_muted_microphone_of_the_field(shared: Path) -> None:
    waveform = read_window(shared / "field" / "muted_lsb.mkv", Spec()).waveform
    assert waveform is not None
    assert waveform.any()
    assert not hears_voice(waveform, RATE)
