"""What a prepared clip shows and says, whatever its files are called."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer.data.cache import Cache
from mer.data.preparation import prepare_cache


@pytest.fixture(autouse=True)
def _haar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MER_FACE_DETECTOR", raising=False)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_silent_video_takes_the_voice_of_its_sibling(
    tmp_path: Path,
    make_clip: Callable[..., Path],
    portrait: NDArray[np.uint8],
    out: Path,
    syllables: Callable[..., NDArray[np.float64]],
) -> None:
    ticks = np.arange(96_000) / 48_000

    def speak(loudest: float) -> NDArray[np.float64]:
        voice = 0.2 * np.sin(2 * np.pi * 440 * ticks) * syllables(ticks)
        return np.asarray(np.where(np.abs(ticks - loudest) < 0.005, 0.9, voice))

    film: dict[str, Any] = {"picture": portrait, "size": (320, 320), "audio": False, "fps": 10}
    make_clip("02-01-03-01-01-01-05.mp4", **film)
    make_clip("03-01-03-01-01-01-05.wav", waveform=speak(0.5))
    make_clip("01-01-04-01-01-01-05.mp4", **film)  # re-encoded without its sound
    make_clip("03-01-04-01-01-01-05.wav", waveform=speak(1.5))
    make_clip("02-01-05-01-01-01-05.mp4", **film)  # nothing to hear anywhere
    prepare_cache(tmp_path, out, jobs=1)
    cache = Cache.open(out)

    assert [row.id for row in cache.rows] == [
        "01-01-04-01-01-01-05",
        "02-01-03-01-01-01-05",
        "02-01-05-01-01-01-05",
    ]
    assert [row.has_voice for row in cache.rows] == [True, True, False]
    assert all(row.has_face for row in cache.rows)
    # A clip of 2 s lies in the middle of the window of 3.6 s: its sound begins at 0.8 s.
    heard = [int(np.abs(cache.waveform(i).astype(int)).argmax()) / 16_000 for i in (0, 1)]
    assert heard == pytest.approx([2.3, 1.3], abs=0.02)  # the loudest part lasts 0.01 s


def test_presence_is_decided_by_content(
    tmp_path: Path, make_clip: Callable[..., Path], portrait: NDArray[np.uint8], out: Path
) -> None:
    """A muted microphone's last bit is no voice, and a frozen picture no face."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(-1, 2, 96_000) / 32_768
    film: dict[str, Any] = {"picture": portrait, "size": (320, 320), "fps": 10}
    pcm: dict[str, Any] = {"waveform": noise, "audio_codec": "flac"}
    shutil.move(make_clip("a.mkv", **film, **pcm), folder / "01-01-03-01-01-01-05.mp4")
    shutil.move(make_clip("b.mp4", **film, times=[0.0, 2.0]), folder / "01-01-04-01-01-01-05.mp4")
    shutil.move(make_clip("c.mkv", times=[0.0], **pcm), folder / "01-01-05-01-01-01-05.mp4")
    summary = prepare_cache(folder, out, jobs=1)
    rows = Cache.open(out).rows
    assert [(row.has_face, row.has_voice) for row in rows] == [(True, False), (True, True)]
    (failure,) = summary.failures
    assert "the picture is frozen and no voice is heard" in failure.error
