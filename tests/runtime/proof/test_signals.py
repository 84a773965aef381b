"""The test signals: what they are, and that no way to prepare them otherwise goes unseen."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.proof.self_test import CROP_TOLERANCE, MFCC_TOLERANCE
from mer_runtime.proof.signals import signal_crop, signal_mfcc
from mer_runtime.spec import AudioSpec, VideoSpec

#: As ``test_mfcc`` has it.
TOLERANCE = 1e-3


def librosa_mfcc(spec: AudioSpec) -> NDArray[np.float32]:
    """Of the signal in words: 12 harmonics of 110 Hz rising to 330, each 3/4 as strong as the
    one before, swelling 3 times a second; by libraries that the runtime does without."""
    import librosa
    from scipy.signal import chirp

    times = np.arange(spec.samples) / spec.sample_rate
    tones = [0.75**k * chirp(times, 110 * k, spec.window, 330 * k, phi=-90) for k in range(1, 13)]
    wave = np.sin(3 * np.pi * times) ** 2 * np.sum(tones, axis=0)
    assert spec.amplitude == "peak"
    mel = librosa.feature.melspectrogram(
        y=(wave / np.abs(wave).max()).astype(np.float32),
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
    )
    decibels = librosa.power_to_db(mel, top_db=spec.top_db)
    return np.asarray(librosa.feature.mfcc(S=decibels, n_mfcc=spec.n_mfcc))


@pytest.mark.parametrize(
    "spec",
    [
        AudioSpec(),
        AudioSpec(sample_rate=22_050),
        AudioSpec(sample_rate=8000, n_fft=512, hop_length=160, n_mfcc=13, n_mels=40),
    ],
    ids=["ours", "the reference's", "another"],
)
def test_mfcc_is_librosas(spec: AudioSpec) -> None:
    given = signal_mfcc(spec)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, librosa_mfcc(spec), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "other",
    [
        {"sample_rate": 16_010},
        {"sample_rate": 16_050},
        {"sample_rate": 8000, "window": 7.2},
        {"n_fft": 2046},
        {"n_mels": 127},
        {"top_db": 79.0},
        {"amplitude": "none"},
    ],
    ids=str,
)
def test_mfcc_of_another_spec_is_another(other: dict[str, Any]) -> None:
    """Of the same shape, so that no engine notices."""
    spec = AudioSpec()
    ours, theirs = signal_mfcc(spec), signal_mfcc(dataclasses.replace(spec, **other))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() > 20 * MFCC_TOLERANCE


def test_crop_is_rich() -> None:
    crop = signal_crop(VideoSpec())
    assert crop.shape == (224, 224, 3)
    assert crop.dtype == np.uint8
    assert crop.std(axis=(0, 1)).min() > 20
    assert 0 < crop.min() <= crop.max() < 255, "what is cut off shows no difference"


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("other", [{"colour": "bgr"}, {"margin": 0.01}, {"margin": 0.5}], ids=str)
def test_crop_of_another_spec_is_another(size: int, other: dict[str, Any]) -> None:
    spec = VideoSpec(size=size)
    ours, theirs = signal_crop(spec), signal_crop(dataclasses.replace(spec, **other))
    assert np.abs(ours.astype(int) - theirs).max() > 10 * CROP_TOLERANCE


def test_colours_are_three() -> None:
    rgb, bgr = signal_crop(VideoSpec()), signal_crop(VideoSpec(colour="bgr"))
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])
    for first, second in ((0, 1), (1, 2)):
        assert np.abs(rgb[..., first].astype(int) - rgb[..., second]).mean() > 20


@pytest.mark.parametrize(
    ("size", "method"),
    [
        *((224, name) for name in ("NEAREST", "CUBIC", "AREA", "LANCZOS4")),
        *((32, name) for name in ("NEAREST", "LINEAR", "CUBIC", "LANCZOS4")),
    ],
)
def test_crop_by_another_method_is_another(
    size: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enlarged for 224 pixels, reduced for 32."""
    spec, resize = VideoSpec(size=size), cv2.resize
    ours = signal_crop(spec).astype(int)

    def resize_otherwise(picture: Any, shape: Any, interpolation: int) -> Any:
        return resize(picture, shape, interpolation=getattr(cv2, f"INTER_{method}"))

    monkeypatch.setattr(cv2, "resize", resize_otherwise)
    assert np.abs(ours - signal_crop(spec)).max() > CROP_TOLERANCE
