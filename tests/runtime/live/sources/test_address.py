"""What a SOURCE means, and what of it people are shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mer_runtime import SpecError
from mer_runtime.live.sources import camera, microphone, parse_source


@pytest.mark.parametrize(
    ("source", "kind", "location"),
    [
        ("-", "stdin", "-"),
        ("0", "camera", "/dev/video0"),
        ("12", "camera", "/dev/video12"),
        ("/dev/video3", "camera", "/dev/video3"),
        ("rtsp://host/stream", "url", "rtsp://host/stream"),
        ("HTTP://host/a.ts", "url", "HTTP://host/a.ts"),
        ("udp://@:5000", "url", "udp://@:5000"),
        ("clip.mp4", "file", "clip.mp4"),
        ("a:b.mp4", "file", "a:b.mp4"),
        ("./0", "file", "./0"),
        ("no\0path", "file", "no\0path"),
    ],
)
def test_kinds(source: str, kind: str, location: str) -> None:
    address = parse_source(source)
    assert (address.kind, address.location) == (kind, location)
    assert address.live is (kind != "file")


def test_named_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera")
    assert parse_source(str(tmp_path / "camera")).kind == "fifo"


def test_password_is_not_shown() -> None:
    address = parse_source("rtsp://user:secret@camera.local:554/live?channel=1")
    assert address.name == "rtsp://camera.local:554/live?channel=1"
    assert address.location == "rtsp://user:secret@camera.local:554/live?channel=1"


def test_rtsp_goes_over_tcp() -> None:
    assert parse_source("rtsp://host/x").options["rtsp_transport"] == "tcp"
    assert "rtsp_transport" not in parse_source("http://host/x").options


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        (None, {}),
        ("640x480", {"video_size": "640x480"}),
        ("1280x720@29.97", {"video_size": "1280x720", "framerate": "29.97"}),
    ],
)
def test_camera_modes(mode: str | None, options: dict[str, str]) -> None:
    assert camera("2", mode).location == "/dev/video2"
    assert camera("2", mode).options == options


@pytest.mark.parametrize("mode", ["640", "640x", "640x480@", "big", "640x480@fast"])
def test_wrong_camera_mode(mode: str) -> None:
    with pytest.raises(SpecError, match="640x480@30"):
        camera("0", mode)


def test_microphone_is_told_apart_from_a_file_of_its_name() -> None:
    assert microphone("plughw:1").name == "microphone plughw:1"
