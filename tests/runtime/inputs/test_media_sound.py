"""A window's sound: resampled, averaged over channels, at the level that it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.media import read_window
from mer_runtime.spec import Spec

MakeClip = Callable[..., Path]


SPEC = Spec()


RATE = SPEC.audio.sample_rate


def voice(sample_rate: int, seconds: float = 4.0) -> NDArray[np.float64]:
    """Partials of a gliding pitch up to 3.4 kHz: a signal that any resampler must keep."""
    ticks = np.arange(round(sample_rate * seconds)) / sample_rate
    phase = 2 * np.pi * np.cumsum(150 + 50 * np.sin(2 * np.pi * 0.7 * ticks)) / sample_rate
    signal = sum(np.sin(k * phase) / k for k in range(1, 17))
    return 0.5 * signal / np.abs(signal).max()


@pytest.mark.parametrize("rate", [8000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_resampling_against_soxr(rate: int, make_clip: MakeClip) -> None:
    soxr = pytest.importorskip("soxr", reason="soxr (of librosa) is the oracle")
    waveform = voice(rate)
    window = read_window(make_clip("clip.wav", waveform=waveform, sample_rate=rate), SPEC)
    start = round(0.2 * RATE)
    # 16 bits, as the file holds them.
    stored = np.round(waveform * 32767) / 32768
    oracle = soxr.resample(stored, rate, RATE, quality="VHQ")[start : start + len(window.waveform)]
    # Below the transition bands the two differ by 16-bit rounding and libswresample's
    # shorter filter: -46 dB of the peak here, and by no delay, which would be far above.
    error = np.abs(window.waveform - oracle)
    assert error.max() < 0.005


def test_same_rate_is_untouched(make_clip: MakeClip) -> None:
    waveform = voice(RATE)
    window = read_window(make_clip("clip.wav", waveform=waveform, sample_rate=RATE), SPEC)
    middle = waveform[round(0.2 * RATE) :][: len(window.waveform)]
    # One step of 16 bits: FFmpeg's converter rounds to even, the encoder scales by 32767.
    np.testing.assert_allclose(window.waveform, middle, atol=2 / 32768)


def test_resampling_does_not_alias(make_clip: MakeClip) -> None:
    """12 kHz can't be held at 16 kHz; it must vanish, not fold to 4 kHz."""
    ticks = np.arange(4 * 48_000) / 48_000
    tone = 0.5 * np.sin(2 * np.pi * 12_000 * ticks)
    window = read_window(make_clip("clip.wav", waveform=tone, sample_rate=48_000), SPEC)
    inner = window.waveform[RATE // 10 : -RATE // 10]
    assert np.abs(inner).max() < 0.005


def test_stereo_is_averaged(make_clip: MakeClip) -> None:
    left, right = voice(RATE), 0.3 * np.cos(2 * np.pi * 300 * np.arange(4 * RATE) / RATE)
    path = make_clip(
        "clip.wav", waveform=np.stack([left, right]), sample_rate=RATE, layout="stereo"
    )
    window = read_window(path, SPEC)
    middle = ((left + right) / 2)[round(0.2 * RATE) :][: len(window.waveform)]
    np.testing.assert_allclose(window.waveform, middle, atol=2 / 32768)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mkv"])
def test_surround_is_averaged(suffix: str, make_clip: MakeClip) -> None:
    channels = np.zeros((6, 4 * RATE))
    channels[2] = 0.9 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)  # the centre speaks
    path = make_clip(
        f"clip{suffix}", waveform=channels, sample_rate=RATE, layout="5.1", video=suffix == ".mkv"
    )
    window = read_window(path, SPEC)
    # The mean of six channels of which one sounds; FLAC and PCM are exact to 16 bits.
    assert np.abs(window.waveform).max() == pytest.approx(0.15, abs=0.001)


@pytest.mark.parametrize("gain", [1.0, 4.0, 100.0])
def test_levels_are_kept(gain: float, make_clip: MakeClip) -> None:
    """A float file may hold more than full scale; only its level differs then."""
    plain = voice(48_000).astype(np.float32)
    options = {"sample_rate": 48_000, "audio_codec": "pcm_f32le"}
    quiet = read_window(make_clip("quiet.wav", waveform=plain, **options), SPEC).waveform
    loud = read_window(make_clip("loud.wav", waveform=gain * plain, **options), SPEC).waveform
    assert quiet is not None
    assert loud is not None
    np.testing.assert_allclose(loud, gain * quiet, atol=gain * 1e-6)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"])
def test_sample_formats(codec: str, make_clip: MakeClip) -> None:
    waveform = voice(RATE)
    path = make_clip("clip.wav", waveform=waveform, sample_rate=RATE, audio_codec=codec)
    window = read_window(path, SPEC)
    middle = waveform[round(0.2 * RATE) :][: len(window.waveform)]
    # A step of 8 bits is 1/128; dither doesn't enter.
    atol = 1.5 / 128 if codec == "pcm_u8" else 2 / 32768
    np.testing.assert_allclose(window.waveform, middle, atol=atol)
