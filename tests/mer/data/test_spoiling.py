"""What training spoils, drawn at random."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mer.data.corruptions import add_echo
from mer.data.spoiling import CROP_KINDS, VoiceSpoiler, spoil_crops

RATE = 16_000


@pytest.fixture
def voice() -> np.ndarray:
    """A second of a tone that swells, after a quarter of a second of silence."""
    ticks = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * ticks) * ticks
    return np.concatenate([np.zeros(RATE // 4), tone / 2]).astype(np.float32)


@pytest.fixture
def crops(portrait: np.ndarray) -> np.ndarray:
    small = cv2.resize(portrait, (96, 96), interpolation=cv2.INTER_AREA)
    return np.stack([small] * 4)


def test_every_draw_is_another_sound(voice: np.ndarray) -> None:
    talkers = np.random.default_rng(0).standard_normal((12, len(voice))).astype(np.float32)
    spoiler = VoiceSpoiler(talkers)
    generator = np.random.default_rng(1)
    heard = [spoiler.spoil(voice, RATE, generator) for _ in range(40)]
    for sound in heard:
        assert sound.shape == voice.shape
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert not np.array_equal(sound, voice)
    again = np.random.default_rng(1)
    np.testing.assert_array_equal(heard[0], spoiler.spoil(voice, RATE, again))


@pytest.mark.parametrize("kind", CROP_KINDS)
def test_crops_stay_crops(crops: np.ndarray, kind: str) -> None:
    before = crops.copy()
    spoilt = spoil_crops(crops, kind, np.random.default_rng(2))
    assert spoilt.shape == crops.shape
    assert spoilt.dtype == np.uint8
    np.testing.assert_array_equal(crops, before)
    assert np.abs(spoilt.astype(int) - crops).mean() > 1
    moves = any(not np.array_equal(one, spoilt[0]) for one in spoilt)
    assert moves == (kind == "jittered")


def test_echo_dies_away(voice: np.ndarray) -> None:
    """A click's echo falls by 60 dB in the time that is given, and has the power that is given."""
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    echo = add_echo(click, RATE, 0.5, 0.25, np.random.default_rng(0)) - click
    assert float((echo**2).sum()) == pytest.approx(0.25, rel=0.01)
    early, late = (float((echo[at : at + 400] ** 2).mean()) for at in (0, RATE // 4))
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=2)  # half of the time
