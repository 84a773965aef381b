"""Our MFCCs are librosa's, on real voices and on signals that go to the limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.mfcc import compute_mfcc, mel_filters, normalise_amplitude
from mer_runtime.spec import AudioSpec, Spec

#: Issue 1's bound. MFCC 0 reaches 1000, so this is one part in a million of float32's range.
TOLERANCE = 1e-3

SPECS = {
    "16 kHz, 10": AudioSpec(),
    "16 kHz, 40": AudioSpec(n_mfcc=40),
    "22 kHz, 10, reference": AudioSpec(sample_rate=22_050, amplitude="none"),
    "8 kHz, short frames": AudioSpec(sample_rate=8000, n_fft=512, hop_length=160, n_mels=40),
    "top_db 60": AudioSpec(top_db=60.0, n_mfcc=20),
}


def librosa_mfcc(waveform: NDArray[np.float32], spec: AudioSpec) -> NDArray[np.float32]:
    import librosa

    if spec.amplitude == "peak":
        peak = np.abs(waveform).max()
        waveform = waveform / peak if peak > 0 else waveform
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
    )
    decibels = librosa.power_to_db(mel, top_db=spec.top_db)
    return librosa.feature.mfcc(S=decibels, n_mfcc=spec.n_mfcc)


def signal(name: str, spec: AudioSpec) -> NDArray[np.float32]:
    """(samples,) float32 of one window."""
    generator = np.random.default_rng(11)
    ticks = np.arange(spec.samples) / spec.sample_rate
    made = {
        "noise": 0.3 * generator.standard_normal(spec.samples),
        "quiet noise": 1e-5 * generator.standard_normal(spec.samples),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * ticks),
        "sweep": 0.9 * np.sin(2 * np.pi * (50 * ticks + 500 * ticks**2)),
        "voice": np.sin(2 * np.pi * np.cumsum(120 + 60 * np.sin(3 * ticks)) / spec.sample_rate)
        * np.clip(np.sin(2 * np.pi * 2 * ticks), 0, 1),
        "clipped": np.clip(3 * np.sin(2 * np.pi * 200 * ticks), -1, 1),
        "silence": np.zeros(spec.samples),
        "constant": np.full(spec.samples, 0.7),
        "impulse": np.where(np.arange(spec.samples) == spec.samples // 3, 1.0, 0.0),
        "padded": np.where((ticks > 0.6) & (ticks < 3), np.sin(2 * np.pi * 300 * ticks), 0.0),
    }
    return made[name].astype(np.float32)


SIGNALS = (
    "noise",
    "quiet noise",
    "tone",
    "sweep",
    "voice",
    "clipped",
    "silence",
    "constant",
    "impulse",
    "padded",
)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("name", SIGNALS)
def test_equals_librosa(name: str, spec: AudioSpec) -> None:
    waveform = signal(name, spec)
    got = compute_mfcc(waveform, spec)
    assert got.shape == spec.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, librosa_mfcc(waveform, spec), rtol=0, atol=TOLERANCE)


def test_defaults_are_librosa_feature_mfcc() -> None:
    """Without our reading of its parts: the one call that the reference makes."""
    import librosa

    spec = AudioSpec(sample_rate=22_050, amplitude="none")
    waveform = signal("voice", spec)
    oracle = librosa.feature.mfcc(y=waveform, sr=22_050, n_mfcc=10)
    np.testing.assert_allclose(compute_mfcc(waveform, spec), oracle, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize(
    "spec", [SPECS["16 kHz, 10"], SPECS["22 kHz, 10, reference"]], ids=["16 kHz", "22 kHz"]
)
def test_equals_librosa_on_the_corpus(corpus: Path, spec: AudioSpec) -> None:
    """RAVDESS's voices, in the stand-in's clips: 66, three an actor."""
    paths = [p for folder in sorted(corpus.glob("Actor_*")) for p in sorted(folder.glob("*"))[::20]]
    assert len(paths) >= 50
    worst = 0.0
    for path in paths:
        waveform = read_window(path, Spec(audio=spec)).waveform
        assert waveform is not None
        difference = compute_mfcc(waveform, spec) - librosa_mfcc(waveform, spec)
        worst = max(worst, float(np.abs(difference).max()))
    assert worst <= TOLERANCE


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("n_mels", [40, 128])
def test_mel_filters_are_librosas(rate: int, n_mels: int) -> None:
    import librosa

    oracle = librosa.filters.mel(sr=rate, n_fft=2048, n_mels=n_mels)
    np.testing.assert_allclose(mel_filters(rate, 2048, n_mels), oracle, rtol=1e-5, atol=1e-8)


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
def test_other_lengths_follow_librosa() -> None:
    spec = AudioSpec()
    for samples in (1, 511, 512, 4096, 20_000):
        waveform = signal("noise", spec)[:samples]
        got = compute_mfcc(waveform, spec)
        assert got.shape == (10, 1 + samples // 512)
        np.testing.assert_allclose(got, librosa_mfcc(waveform, spec), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("amplitude", ["peak", "none"])
def test_input_is_left_alone(amplitude: str) -> None:
    spec = AudioSpec(amplitude=amplitude)
    waveform = 0.5 * signal("voice", spec)
    before = waveform.copy()
    compute_mfcc(waveform, spec)
    np.testing.assert_array_equal(waveform, before)


# --- amplitude ----------------------------------------------------------------------------


def test_peak_becomes_one() -> None:
    assert np.abs(normalise_amplitude(np.float32([0.1, -0.2, 0.05]), "peak")).max() == 1
    np.testing.assert_array_equal(
        normalise_amplitude(np.float32([0.25, -0.5]), "peak"), np.float32([0.5, -1.0])
    )


def test_none_leaves_it() -> None:
    waveform = np.float32([0.1, -0.2])
    np.testing.assert_array_equal(normalise_amplitude(waveform, "none"), waveform)


@pytest.mark.parametrize("amplitude", ["peak", "none"])
def test_silence_stays(amplitude: str) -> None:
    silent = np.zeros(100, np.float32)
    np.testing.assert_array_equal(normalise_amplitude(silent, amplitude), silent)


@settings(max_examples=60, deadline=None)
@given(
    waveform=hnp.arrays(np.float32, st.integers(1, 1500), elements=st.floats(-1, 1, width=16)),
    power=st.integers(-10, 3),
)
def test_scaling_changes_nothing(waveform: NDArray[np.float32], power: int) -> None:
    """With ``peak``, loudness is gone. Powers of two: any other factor rounds the samples."""
    spec = AudioSpec(n_fft=512, hop_length=256, n_mels=40)
    scaled = np.ldexp(waveform, power).astype(np.float32)
    np.testing.assert_array_equal(compute_mfcc(scaled, spec), compute_mfcc(waveform, spec))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gain=st.floats(1e-3, 4.0))
def test_any_gain_changes_hardly_anything(seed: int, gain: float) -> None:
    spec = AudioSpec()
    waveform = np.random.default_rng(seed).uniform(-1, 1, 8192).astype(np.float32)
    # float32 rounding of the gain: 1e-7 of amplitude, 1e-6 dB a band, times sqrt(128) bands.
    np.testing.assert_allclose(
        compute_mfcc((waveform * np.float32(gain)).astype(np.float32), spec),
        compute_mfcc(waveform, spec),
        rtol=0,
        atol=TOLERANCE,
    )


def test_loudness_shows_without_normalisation() -> None:
    """The converse, so that the two tests above can fail."""
    spec = AudioSpec(amplitude="none")
    waveform = signal("noise", spec)
    quiet, loud = compute_mfcc(0.1 * waveform, spec), compute_mfcc(waveform, spec)
    # 20 dB in each of 128 bands: MFCC 0 moves by 20 * sqrt(128).
    np.testing.assert_allclose(loud[0] - quiet[0], 20 * np.sqrt(128), rtol=1e-4)


def test_needs_no_librosa() -> None:
    code = (
        "import sys, mer_runtime.inputs.mfcc; sys.exit(len({'librosa', 'scipy'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
