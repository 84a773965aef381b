"""How FFmpeg opens cameras and microphones: as a system's own devices are called there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from errno import ENOENT
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av

Kind = Literal["camera", "microphone"]

#: Where ALSA's own files are, for wheels that carry a libasound built elsewhere.
ALSA_VARIABLE = "ALSA_CONFIG_PATH"
ALSA_CONFIG = "/usr/share/alsa/alsa.conf"
#: What a device gives, as FFmpeg calls it.
MEDIA = {"camera": "video", "microphone": "audio"}


class Opening(NamedTuple):
    """What ``av.open`` takes for a device: ``format`` is FFmpeg's name of the kind of input."""

    format: str
    location: str
    options: dict[str, str]


def plan_opening(
    kind: Kind,
    device: str,
    options: Mapping[str, str],
    platform: str = sys.platform,
    list_devices: Callable[[str], Sequence[Any]] | None = None,
) -> Opening:
    """Where and how to open a device.

    Args:
        device: Video4Linux's path or ALSA's name; on Windows and macOS the device's name there, or
            its number, counted from 0.
        options: FFmpeg's, by name; they go before ours.
        platform: as in ``sys.platform``.
        list_devices: the devices (``av.DeviceInfo``) of one of FFmpeg's inputs.

    Raises:
        FileNotFoundError: there is no device of that number on Windows.
    """
    if platform == "win32":
        # DirectShow has names only; by default it keeps 3 MB, a tenth of a second of pictures.
        name = _find_name(kind, device, (list_devices or _list_devices)("dshow"))
        ours = {"rtbufsize": "67108864"} if kind == "camera" else {"audio_buffer_size": "50"}
        return Opening("dshow", f"{MEDIA[kind]}={name}", {**ours, **options})
    if platform == "darwin":
        # "PICTURE:SOUND". Its own 29.97 frames a second are none of most cameras' rates.
        if kind == "camera":
            return Opening("avfoundation", f"{device}:none", {"framerate": "30", **options})
        return Opening("avfoundation", f":{device}", dict(options))
    if kind == "camera":
        return Opening("v4l2", device, dict(options))
    return Opening("alsa", device, {"sample_rate": "48000", **options})


def open_device(opening: Opening, timeout: tuple[float, float]) -> Any:
    """The device's container.

    Raises:
        av.FFmpegError, OSError: it can't be opened.
    """
    name, location, options = opening
    if name != "alsa":
        return av.open(location, format=name, options=options, timeout=timeout)
    if ALSA_VARIABLE not in os.environ and Path(ALSA_CONFIG).is_file():
        os.environ[ALSA_VARIABLE] = ALSA_CONFIG
    try:
        mono = options | {"ch_layout": "mono"}
        return av.open(location, format=name, options=mono, timeout=timeout)
    except (av.FFmpegError, OSError):  # hardware that records in stereo only
        return av.open(location, format=name, options=options, timeout=timeout)


def is_built_in(name: str) -> bool:
    """Whether this PyAV has an input of FFmpeg's."""
    return any(name in formats.split(",") for formats in av.formats_available)


def tell_devices(kind: Kind, platform: str = sys.platform) -> str:
    """Where to look for what there is: a command, or the devices themselves."""
    if platform not in ("win32", "darwin"):
        tool = "v4l2-ctl --list-devices" if kind == "camera" else "arecord -L"
        return f"{tool} lists what there is"
    return _tell(kind, _list_devices("dshow" if platform == "win32" else "avfoundation"))


def _find_name(kind: Kind, device: str, devices: Sequence[Any]) -> str:
    if not device.isdecimal():
        return device
    names = [one.name for one in devices if MEDIA[kind] in one.media_types]
    if int(device) >= len(names):
        raise FileNotFoundError(ENOENT, f"there is no {kind} {device}")
    return str(names[int(device)])


def _tell(kind: Kind, devices: Sequence[Any]) -> str:
    names = [one.description for one in devices if MEDIA[kind] in one.media_types]
    told = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    return f"there is: {told}" if told else f"no {kind} was found"


def _list_devices(name: str) -> Sequence[Any]:
    """Empty where PyAV can't tell, as without that input."""
    try:
        return list(av.enumerate_input_devices(name))
    except (av.FFmpegError, ValueError, OSError):
        return []
