"""Misses and false alarms are counted as the docs say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mer.data.cache import Cache
from mer.data.preparation import prepare_cache

Load = Callable[[str], ModuleType]


@pytest.fixture
def cache(sample_clip: Path, tmp_path: Path) -> Cache:
    """The sample's voice as an actor's who tests and one's who trains."""
    root = tmp_path / "corpus"
    root.mkdir()
    for actor in ("01", "05"):
        (root / f"01-01-03-01-01-01-{actor}.mp4").symlink_to(sample_clip)
    prepare_cache(root, tmp_path / "cache", jobs=1)
    return Cache.open(tmp_path / "cache")


def test_sounds_are_no_voice_and_music_is(load_script: Load) -> None:
    for sound in load_script("voiceless").list_sounds():
        made = sound.draw(57_600, 16_000, np.random.default_rng(1))
        assert (made.shape, made.dtype) == ((57_600,), np.float32)
        assert np.abs(made).max() <= 1
        again = sound.draw(57_600, 16_000, np.random.default_rng(1))
        np.testing.assert_array_equal(made, again)


def test_voices_and_sounds(load_script: Load, cache: Cache) -> None:
    script = load_script("measure_presence")
    rows = cache.select("test")
    judged = {one["name"]: one["heard"] for one in script.judge_voices(cache, rows)}
    assert judged["none"] == judged["gain -20 dB"] == judged["telephone"] == len(rows) == 1
    sounds = {one["name"]: one["heard"] for one in script.judge_sounds(cache, 3)}
    assert sounds["melody"] == 3
    assert [n for n, heard in sounds.items() if heard and n not in ("melody", "chords")] == []


def test_faces(load_script: Load, sample_clip: Path) -> None:
    counts = load_script("measure_presence").judge_faces([sample_clip])
    assert counts == {"recorded": 1, "frozen": 0, "frozen, H.264": 0}
