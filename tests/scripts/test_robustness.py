"""Corruptions: what they do to pictures, boxes and sounds, measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mer.data.corruptions import (
    add_noise,
    blur,
    change_brightness,
    change_gain,
    compress_jpeg,
    limit_rate,
    make_pink_noise,
    pass_telephone,
)
from mer_runtime.errors import MediaError
from mer_runtime.inputs.face import HaarDetector
from mer_runtime.inputs.media import ClipWindow, read_window
from mer_runtime.spec import AudioSpec, Spec, VideoSpec
from robustness import JitteringDetector, list_corruptions
from transcoding import transcode_video

RATE = 16_000


@pytest.fixture
def frames(portrait: np.ndarray) -> np.ndarray:
    small = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    return np.stack([small, np.roll(small, 5, axis=1)])


@pytest.fixture
def voice() -> np.ndarray:
    """Two seconds of tones at 1 and 5 kHz, a quarter of full scale each."""
    ticks = np.arange(2 * RATE) / RATE
    tones = np.sin(2 * np.pi * 1000 * ticks) + np.sin(2 * np.pi * 5000 * ticks)
    return (tones / 4).astype(np.float32)


def level(waveform: np.ndarray, hertz: int) -> float:
    """Amplitude of one frequency in the middle second, where no filter rings."""
    ticks = np.arange(RATE)
    turn = np.exp(-2j * np.pi * hertz * ticks / RATE)
    return 2 * abs(np.mean(waveform[RATE // 2 : RATE // 2 + RATE] * turn))


def test_rows_touch_what_they_say(frames: np.ndarray, voice: np.ndarray) -> None:
    talkers = np.random.default_rng(0).standard_normal((3, len(voice))).astype(np.float32)
    rows = list_corruptions(talkers)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) >= 15
    window = ClipWindow(frames, voice, 2.0)
    for row in rows:
        one = row.apply(window, RATE, np.random.default_rng(1))
        again = row.apply(window, RATE, np.random.default_rng(1))
        assert one.frames is not None
        assert one.waveform is not None
        assert (one.frames.shape, one.frames.dtype) == (frames.shape, np.uint8), row.name
        assert (one.waveform.shape, one.waveform.dtype) == (voice.shape, np.float32), row.name
        np.testing.assert_array_equal(one.frames, again.frames)
        np.testing.assert_array_equal(one.waveform, again.waveform)
        elsewhere = row.detector is not None or row.bitrate is not None
        changed = (one.frames != frames).any(), (one.waveform != voice).any()
        assert changed == (row.modality == "face" and not elsewhere, row.modality == "voice"), (
            row.name
        )
        assert row.what
    # A recording without pictures, or without sound, passes through.
    for row in rows:
        bare = row.apply(ClipWindow(None, None, 2.0), RATE, np.random.default_rng(1))
        assert bare == ClipWindow(None, None, 2.0)


def test_brightness_is_a_factor(frames: np.ndarray) -> None:
    darker, brighter = change_brightness(frames, 0.5), change_brightness(frames, 2.5)
    assert np.abs(darker - frames / 2).max() <= 0.5  # rounding
    np.testing.assert_array_equal(brighter, np.minimum(np.rint(frames * 2.5), 255))


def test_blur_and_jpeg_lose_detail(frames: np.ndarray) -> None:
    def detail(pictures: np.ndarray) -> float:
        return float(np.abs(np.diff(pictures.astype(float), axis=2)).mean())

    assert detail(blur(frames, 4)) < detail(blur(frames, 2)) < 0.7 * detail(frames)
    losses = [np.abs(compress_jpeg(frames, q).astype(float) - frames).mean() for q in (95, 30, 10)]
    assert losses == sorted(losses)
    # Red must stay red: a swap of channels would cost far more than compression does.
    assert losses[0] < 3


def test_boxes_move_and_grow_within_bounds(portrait: np.ndarray) -> None:
    plain = HaarDetector()
    (box,) = plain.detect_all(portrait)[:1]
    jittering = JitteringDetector(plain, 0.1, np.random.default_rng(2))
    assert jittering.name == "haar"
    drawn = []
    for _ in range(20):
        one = jittering.detect(portrait)
        assert one is not None
        right = (one.x + one.width / 2 - box.x - box.width / 2) / box.width
        down = (one.y + one.height / 2 - box.y - box.height / 2) / box.width
        drawn.append((right, down, one.width / box.width - 1))
        assert one.width / box.width == pytest.approx(one.height / box.height)
    assert np.abs(drawn).max() <= 0.1 + 1e-9
    assert (np.std(drawn, axis=0) > 0.03).all()  # of a uniform draw from ± 0.1 it is 0.058
    assert jittering.detect(np.zeros((64, 64, 3), np.uint8)) is None


@pytest.mark.parametrize("snr", [20, 0])
def test_noise_is_as_loud_as_said(voice: np.ndarray, snr: int) -> None:
    noise = make_pink_noise(len(voice), np.random.default_rng(3))
    added = add_noise(voice, noise, snr) - voice
    ratio = 10 * np.log10(np.mean(voice**2) / np.mean(added**2))
    assert ratio == pytest.approx(snr, abs=0.01)


def test_noise_needs_sound(voice: np.ndarray) -> None:
    silence = np.zeros_like(voice)
    np.testing.assert_array_equal(add_noise(voice, silence, 10), voice)
    np.testing.assert_array_equal(add_noise(silence, voice, 10), silence)


def test_pink_noise_falls_by_three_decibels_an_octave() -> None:
    noise = make_pink_noise(1 << 17, np.random.default_rng(4))
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[1000:2000].mean(), power[8000:16_000].mean()  # three octaves apart
    # Averages of 1 000 and 8 000 exponential draws: within 0.2 dB.
    assert 10 * np.log10(low / high) == pytest.approx(9.03, abs=0.5)


def test_gain_clips_and_rounds(voice: np.ndarray) -> None:
    loud = change_gain(voice, 30)
    assert loud.max() == pytest.approx(1, abs=1e-4)
    assert loud.min() == -1
    soft = change_gain(voice, -40) * 32_768
    np.testing.assert_array_equal(soft, np.rint(soft))
    assert np.abs(soft - voice * 327.68).max() <= 0.5 + 1e-3  # half a step, float32


def test_telephone_passes_its_band(voice: np.ndarray) -> None:
    for narrow in (limit_rate(voice, RATE, 8_000), pass_telephone(voice, RATE)):
        assert level(narrow, 1000) == pytest.approx(0.25, rel=0.05)
        assert level(narrow, 5000) < 0.005
    ticks = np.arange(2 * RATE) / RATE
    hum = (np.sin(2 * np.pi * 100 * ticks) / 4).astype(np.float32)
    assert level(limit_rate(hum, RATE, 8_000), 100) == pytest.approx(0.25, rel=0.05)
    assert level(pass_telephone(hum, RATE), 100) < 0.01


def test_video_is_encoded_again_and_nothing_else(
    make_clip: Callable[..., Path], portrait: np.ndarray, tmp_path: Path
) -> None:
    spec = Spec(AudioSpec(), VideoSpec(frames=5))
    clip = make_clip(picture=portrait, size=(320, 240), seconds=4)
    plain = read_window(clip, spec)
    thin = tmp_path / "thin.mp4"
    losses = []
    for bitrate in (400_000, 20_000):
        transcode_video(clip, thin, bitrate)
        window = read_window(thin, spec)
        np.testing.assert_array_equal(window.waveform, plain.waveform)
        assert window.duration == pytest.approx(plain.duration, abs=1e-3)
        assert window.frames is not None
        assert plain.frames is not None
        assert window.frames.shape == plain.frames.shape
        losses.append(np.abs(window.frames.astype(float) - plain.frames).mean())
    assert losses[0] < 0.5 * losses[1]


def test_what_can_t_be_encoded_again(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    thin = tmp_path / "thin.mp4"
    with pytest.raises(MediaError, match="no video"):
        transcode_video(make_clip("voice.wav"), thin, 20_000)
    junk = tmp_path / "junk.mp4"
    junk.write_text("nothing")
    with pytest.raises(MediaError, match="not a media file"):
        transcode_video(junk, thin, 20_000)
    assert not thin.exists()
