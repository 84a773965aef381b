"""A folder's clips: by what files hold, links followed once, and what was left out is said."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mer_runtime.inputs.listing import MEDIA_SUFFIXES, list_media

MakeClip = Callable[..., Path]


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_media(root).clips]


@pytest.mark.parametrize("suffix", [*MEDIA_SUFFIXES, ".ts"])
@pytest.mark.parametrize("name", ["clip", "clip.recording", "clip.txt", "CLIP"])
def test_found_by_what_they_hold(
    suffix: str, name: str, make_clip: MakeClip, tmp_path: Path
) -> None:
    """Under any name: media are told by their content."""
    path = make_clip(f"made{suffix}", seconds=2.0, size=(176, 144))
    path.rename(tmp_path / name)
    assert names(tmp_path) == [name]


def test_other_files_are_left_out(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    (tmp_path / "notes.txt").write_text("A letter.\n" * 100)
    (tmp_path / "app.ts").write_text("export const port: number = 8080;\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nclip.ts\n")
    (tmp_path / "empty").touch()
    for i in range(20):
        (tmp_path / f"noise{i}.bin").write_bytes(generator.bytes(50_000))
    listing = list_media(tmp_path)
    assert listing.clips == ()
    assert listing.left_out == {"not media": 24}
    assert listing.describe_left_out() == "left out: 24 not media"


def test_pictures_and_captions_are_no_clips(tmp_path: Path) -> None:
    import cv2

    for name in ("face.jpg", "face.png", "face.webp"):
        cv2.imwrite(str(tmp_path / name), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "clip.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n" * 20)
    assert names(tmp_path) == []


def test_damaged_clip_is_still_one(tmp_path: Path) -> None:
    """So that its damage is told, instead of passing it over."""
    (tmp_path / "broken.mp4").write_bytes(b"not a clip")
    assert names(tmp_path) == ["broken.mp4"]


def test_hidden_files_and_system_folders(tmp_path: Path) -> None:
    for name in ("a.mp4", "._a.mp4", ".trash/b.mp4", "__MACOSX/c.mp4", "sub/__MACOSX/._d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listing = list_media(tmp_path)
    assert listing.clips == (tmp_path / "a.mp4",)
    assert listing.left_out == {"hidden": 4}
    # A folder that the user names is wanted.
    assert names(tmp_path / ".trash") == ["b.mp4"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "real").mkdir(parents=True)
    elsewhere.mkdir()
    (root / "real" / "a.mp4").touch()
    (elsewhere / "b.mp4").touch()
    (root / "again").symlink_to(root / "real")  # sorts before it
    (root / "there").symlink_to(elsewhere)
    (root / "there too").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "real" / "up").symlink_to(root)
    assert names(root) == ["real/a.mp4", "there too/b.mp4"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    os.mkfifo(tmp_path / "pipe.mp4")  # opened, it would wait for ever
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        listing = list_media(tmp_path)
    assert listing.clips == (tmp_path / "a.mp4",)
    assert listing.left_out == {"not readable": 4}
