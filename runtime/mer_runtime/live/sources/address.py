"""What a SOURCE on the command line means: a device, a pipe, a URL or a file."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from mer_runtime.errors import SpecError

Kind = Literal["camera", "microphone", "stdin", "fifo", "url", "file"]

STDIN = "-"
#: Elsewhere than on Linux devices have names and numbers.
HAS_PATHS = sys.platform not in ("win32", "darwin")
DEFAULT_CAMERA = "/dev/video0" if HAS_PATHS else "0"
DEFAULT_MICROPHONE = "default" if HAS_PATHS else "0"

#: Seconds that FFmpeg may look at a stream before its first frame is given out.
PROBE_SECONDS = 2.0

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MODE = re.compile(r"(\d+)x(\d+)(?:@(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Address:
    """Where FFmpeg finds a source.

    Attributes:
        location: what FFmpeg opens.
        name: what people are shown: ``location`` without user name and password.
        options: FFmpeg's, by name.
    """

    kind: Kind
    location: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether it goes on by itself: everything but a file."""
        return self.kind != "file"


def parse_source(source: str) -> Address:
    """Tell a camera (``/dev/video1`` or ``1``), standard input (``-``), a URL, a named pipe and
    a file from each other. What exists as a file or folder is that, whatever it is called."""
    if source == STDIN:
        return Address("stdin", STDIN, "standard input", _probe())
    if _is_on_disk(source):
        return Address("file", source, source)
    if source.isdecimal() or source.startswith("/dev/video"):
        return camera(source)
    if _SCHEME.match(source):
        return _url(source)
    if _is_fifo(source):
        return Address("fifo", source, source, _probe())
    return Address("file", source, source)


def camera(device: str = DEFAULT_CAMERA, mode: str | None = None) -> Address:
    """A camera: of Video4Linux, on Windows of DirectShow, on macOS of AVFoundation.

    Args:
        device: its number; else its path on Linux, its name elsewhere.
        mode: ``WIDTHxHEIGHT`` or ``WIDTHxHEIGHT@RATE``; by default what it is set to.

    Raises:
        SpecError: the mode isn't of that form.
    """
    path = f"/dev/video{device}" if device.isdecimal() and HAS_PATHS else device
    options = {}
    if mode is not None:
        match = _MODE.fullmatch(mode)
        if match is None:
            raise SpecError(f"a camera's mode is like 640x480 or 640x480@30, not {mode!r}")
        options["video_size"] = f"{match[1]}x{match[2]}"
        if match[3]:
            options["framerate"] = match[3]
    name = path if path.startswith("/") else f"camera {path}"
    return Address("camera", path, name, options)


def microphone(device: str = DEFAULT_MICROPHONE) -> Address:
    """An ALSA device, such as ``default`` or ``plughw:1``; elsewhere its name or number."""
    return Address("microphone", device, f"microphone {device}")


def _url(source: str) -> Address:
    parts = urlsplit(source)
    options = _probe()
    if parts.scheme.lower() in ("rtsp", "rtsps"):
        # Over UDP lost packets tear the picture, and many networks drop all of them.
        options["rtsp_transport"] = "tcp"
    return Address("url", source, _hide_password(source), options)


def _probe() -> dict[str, str]:
    return {"analyzeduration": str(round(PROBE_SECONDS * 1e6))}


def _hide_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host))


def _is_on_disk(path: str) -> bool:
    """Whether it is a file or folder here; a device or pipe is none."""
    try:
        return Path(path).is_file() or Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False
