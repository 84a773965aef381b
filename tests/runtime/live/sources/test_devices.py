"""What each system calls its cameras and microphones.

Only Linux's can be opened where the tests run (``test_capture``). Of the others it is what FFmpeg
is asked for, as its documentation of ``dshow`` and ``avfoundation`` has it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import av
import pytest

from mer_runtime.live.sources.devices import Kind, is_built_in, plan_opening, tell_devices

HERE = [
    av.DeviceInfo("@device_pnp_1", "Integrated Camera", False, ["video"]),
    av.DeviceInfo("@device_cm_1", "Microphone (Realtek)", True, ["audio"]),
    av.DeviceInfo("@device_pnp_2", "USB Camera", False, ["video", "audio"]),
]


def list_devices(name: str) -> Sequence[av.DeviceInfo]:
    return HERE


@pytest.mark.parametrize(
    ("platform", "kind", "device", "name", "location"),
    [
        ("linux", "camera", "/dev/video0", "v4l2", "/dev/video0"),
        ("linux", "microphone", "default", "alsa", "default"),
        ("freebsd14", "camera", "/dev/video0", "v4l2", "/dev/video0"),
        ("win32", "camera", "0", "dshow", "video=@device_pnp_1"),
        ("win32", "camera", "1", "dshow", "video=@device_pnp_2"),
        ("win32", "camera", "Integrated Camera", "dshow", "video=Integrated Camera"),
        ("win32", "microphone", "1", "dshow", "audio=@device_pnp_2"),
        ("win32", "microphone", "Line In", "dshow", "audio=Line In"),
        ("darwin", "camera", "0", "avfoundation", "0:none"),
        ("darwin", "camera", "FaceTime HD Camera", "avfoundation", "FaceTime HD Camera:none"),
        ("darwin", "microphone", "0", "avfoundation", ":0"),
    ],
)
def test_where(platform: str, kind: Kind, device: str, name: str, location: str) -> None:
    opening = plan_opening(kind, device, {}, platform, list_devices)
    assert (opening.format, opening.location) == (name, location)


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_what_was_asked_for_goes_first(platform: str) -> None:
    asked = {"video_size": "640x480", "framerate": "15"}
    found = plan_opening("camera", "0", asked, platform, list_devices).options
    assert found.items() >= asked.items()


@pytest.mark.parametrize("kind", ["camera", "microphone"])
def test_number_that_windows_does_not_have(kind: Kind) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no {kind} 2"):
        plan_opening(kind, "2", {}, "win32", list_devices)


def test_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tell_devices("microphone", "linux") == "arecord -L lists what there is"
    if sys.platform != "darwin":  # without that input
        assert tell_devices("camera", "darwin") == "no camera was found"
    monkeypatch.setattr(av, "enumerate_input_devices", list_devices)
    assert tell_devices("camera", "win32") == "there is: 0 Integrated Camera, 1 USB Camera"


def test_what_is_built_in() -> None:
    assert is_built_in("v4l2")
    assert is_built_in("alsa")
    assert not is_built_in("dshow")
