"""Tracks that are none of a picture or sound, and what a damaged file makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mer_runtime.errors import MediaError
from mer_runtime.inputs.container import open_file
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.streams import MediaStreams
from mer_runtime.spec import Spec

MakeClip = Callable[..., Path]


def damage(path: Path, *tracks: bytes) -> Path:
    """An MP4 of whose tracks these no longer say what they are: to FFmpeg they are data."""
    content = path.read_bytes()
    for track in tracks:
        at = content.rindex(b"hdlr", 0, content.index(track, content.index(b"hdlr")))
        for word in (track, {b"vide": b"avc1", b"soun": b"mp4a"}[track]):
            place = content.index(word, at)
            content = content[:place] + b"\0\0\0\1" + content[place + 4 :]
    changed = path.with_name("damaged.mp4")
    changed.write_bytes(content)
    return changed


@pytest.fixture
def clip(make_clip: MakeClip) -> Path:
    tone = 0.3 * np.sin(np.arange(32_000) / 9).astype(np.float32)
    return make_clip("clip.mp4", seconds=2.0, waveform=tone, sample_rate=16_000)


def test_nothing_is_read_where_no_track_is(clip: Path) -> None:
    # A picture alone is wanted; its track says that it is data, and the sound isn't asked for.
    with open_file(damage(clip, b"vide")) as container:
        assert [stream.type for stream in container.streams] == ["data", "audio"]
        streams = MediaStreams("clip", container, None, audio=False)
        assert not streams.all
        assert list(streams.decode(streams.demux())) == []


@pytest.mark.parametrize("tracks", [(b"vide",), (b"soun",), (b"vide", b"soun")])
def test_tracks_that_became_data_are_left_out(clip: Path, tracks: tuple[bytes, ...]) -> None:
    path = damage(clip, *tracks)
    if len(tracks) == 2:
        with pytest.raises(MediaError, match="neither video nor sound"):
            read_window(path, Spec())
        return
    window = read_window(path, Spec())
    assert (window.frames is None) == (tracks == (b"vide",))
    assert (window.waveform is None) == (tracks == (b"soun",))


def test_second_opening_that_shows_other_tracks(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # FFmpeg guesses a damaged track anew, each time that it opens the file.
    damaged = damage(clip, b"vide", b"soun")
    opened = 0

    def open_in_turns(path: object) -> object:
        nonlocal opened
        opened += 1
        return open_file(clip if opened == 1 else damaged)

    monkeypatch.setattr("mer_runtime.inputs.media_file.open_file", open_in_turns)
    with pytest.raises(MediaError, match="neither video nor sound"):
        read_window(clip, Spec())
    assert opened > 1
