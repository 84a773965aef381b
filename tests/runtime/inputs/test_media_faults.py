"""Files that are damaged, empty or no media: refused in a line, or read as far as they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.errors import MediaError
from mer_runtime.inputs.listing import MEDIA_SUFFIXES
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import Spec

MakeClip = Callable[..., Path]


ReadNumber = Callable[[NDArray[np.uint8]], int]


SPEC = Spec()


#: Containers whose codecs keep times and levels well enough to be held to.
EXACT_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".wav", ".flac", ".mp3")


def one_line(error: pytest.ExceptionInfo[MediaError], path: Path) -> str:
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", EXACT_SUFFIXES)
def test_empty_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    assert "empty" in one_line(error, path)


@pytest.mark.parametrize("suffix", MEDIA_SUFFIXES)
def test_text_under_a_media_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_text("This is a letter, not a clip.\n" * 40)
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    one_line(error, path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_window(tmp_path / "missing.mp4", SPEC)
    with pytest.raises(MediaError, match="folder"):
        read_window(tmp_path, SPEC)


def test_truncated_mp4_without_its_index(make_clip: MakeClip) -> None:
    """An MP4's index lies at the end: half a file can't be read at all."""
    path = make_clip("clip.mp4", seconds=5.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    one_line(error, path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_matroska_gives_what_is_left(
    share: float, make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    path = make_clip("clip.mkv", seconds=8.0)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    window = read_window(path, SPEC)
    # The centre of what is left, not of what the header promises.
    numbers = [read_frame_number(frame) for frame in window.frames]
    left = window.duration
    assert left == pytest.approx(8.0 * share, abs=0.8)
    middle = numbers[7] / 30
    assert middle == pytest.approx(left / 2, abs=0.1)


def test_noise_inside_the_file_is_survived_or_refused(make_clip: MakeClip) -> None:
    """Flipped bytes give frames or a MediaError; nothing else may escape."""
    generator = np.random.default_rng(3)
    original = make_clip("clip.mp4", seconds=3.0).read_bytes()
    for attempt in range(12):
        data = bytearray(original)
        for at in generator.integers(32, len(data), 200):
            data[at] = generator.integers(256)
        path = make_clip("broken.mp4", seconds=0.1)
        path.write_bytes(data)
        try:
            window = read_window(path, SPEC)
        except MediaError:
            continue
        assert window.frames is not None or window.waveform is not None, attempt
        if window.waveform is not None:
            assert np.isfinite(window.waveform).all()


def test_header_without_frames(tmp_path: Path) -> None:
    """A recorder that died at once: a valid header and nothing in it."""
    path = tmp_path / "clip.wav"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        container.start_encoding()
        assert stream is not None
    assert path.stat().st_size > 0
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    one_line(error, path)
