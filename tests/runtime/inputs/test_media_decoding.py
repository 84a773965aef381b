"""Frames that aren't decoded change no frame that is shown."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.errors import FaceDetectorError
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.picks import FramePicks
from mer_runtime.spec import Spec

MakeClip = Callable[..., Path]


SPEC = Spec()


WINDOW = SPEC.audio.window


def write_predicted_clip(path: Path, codec: str = "libx264", seconds: float = 4.0) -> Path:
    """Moving stripes at 30 frames a second, most of them predicted from both sides (B frames)."""
    options = {"libx264": {"preset": "medium", "bf": "3", "b-pyramid": "none", "g": "60"}}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = options.get(codec, {})
        if codec == "mpeg4":
            stream.codec_context.max_b_frames = 2
        ramp = np.add.outer(2 * np.arange(64), 3 * np.arange(96))
        for number in range(round(30 * seconds)):
            shade = (ramp + 7 * number) % 256
            pixels = np.stack([shade, shade[::-1], 255 - shade], axis=-1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """Every frame that decodes, with its time: nothing is left out here."""
    frames = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                decoded = packet.decode()
            except av.InvalidDataError:
                continue
            frames += [
                (f.time, np.asarray(f.to_ndarray(format="rgb24"), np.uint8)) for f in decoded
            ]
    return frames


def pick_from_all(path: Path, duration: float) -> NDArray[np.uint8]:
    """The window's pictures by its definition."""
    frames = decode_all(path)
    times = (duration - WINDOW) / 2 + (np.arange(15) + 0.5) * WINDOW / 15
    shown = [sum(time <= t + 1e-4 for time, _ in frames) - 1 for t in times]
    return np.stack([frames[max(i, 0)][1] for i in shown])


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Times of the frames that were decoded."""
    times: list[float] = []
    offer = FramePicks.offer

    def note(picks: FramePicks, frame: Any, time: float) -> None:
        times.append(time)
        offer(picks, frame, time)

    monkeypatch.setattr(FramePicks, "offer", note)
    return times


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.mp4", "libx264"), ("clip.mkv", "libx264"), ("clip.mp4", "mpeg4")]
)
def test_sparing_frames_changes_none(
    name: str, codec: str, tmp_path: Path, offered: list[float]
) -> None:
    path = write_predicted_clip(tmp_path / name, codec)
    window = read_window(path, SPEC)
    assert window.frames is not None
    # 120 frames, of which half or more are B frames and 15 are shown.
    assert len(offered) < 90
    assert offered == sorted(set(offered))  # once
    np.testing.assert_array_equal(window.frames, pick_from_all(path, window.duration))


def test_watcher_sees_the_windows_pictures(tmp_path: Path) -> None:
    path = write_predicted_clip(tmp_path / "clip.mp4")
    seen = []
    window = read_window(path, SPEC, lambda place, picture: seen.append((place, picture.copy())))
    assert window.frames is not None
    assert [place for place, _ in seen] == list(range(15))
    np.testing.assert_array_equal(np.stack([picture for _, picture in seen]), window.frames)


def test_damaged_frame_is_replaced_by_the_one_before(tmp_path: Path, offered: list[float]) -> None:
    """A frame that was counted on doesn't decode: the one before stands in, though unneeded."""
    path = write_predicted_clip(tmp_path / "clip.mkv")
    duration = read_window(path, SPEC).duration
    whole = pick_from_all(path, duration)
    times = (duration - WINDOW) / 2 + (np.arange(15) + 0.5) * WINDOW / 15
    shown = {int(np.floor(t * 30 + 0.003)) for t in times}
    data = bytearray(path.read_bytes())
    # All slices of some shown frames become units of a type that H.264 doesn't know.
    with av.open(str(path)) as container:
        packets = [
            bytes(p)
            for p in container.demux(video=0)
            if p.pts is not None and not p.is_keyframe and round(p.pts * p.time_base * 30) in shown
        ]
    assert len(packets) > 8
    for packet in packets[3:6]:
        at = data.index(packet)
        data[at + 4 : at + len(packet)] = bytes([31] * (len(packet) - 4))
    path.write_bytes(data)
    offered.clear()
    places = []
    window = read_window(path, SPEC, lambda place, picture: places.append(place))
    assert window.frames is not None
    assert len(set(offered)) > 100  # the second time all were decoded
    assert places.count(0) == 2
    assert places[-15:] == list(range(15))
    assert (window.frames != whole).any()
    np.testing.assert_array_equal(window.frames, pick_from_all(path, duration))


def test_detectors_error_is_the_users(make_clip: MakeClip) -> None:
    """What a watcher raises isn't taken for a damaged file."""

    def refuse(place: int, picture: NDArray[np.uint8]) -> None:
        raise FaceDetectorError("no such detector")

    with pytest.raises(FaceDetectorError, match="no such detector"):
        read_window(make_clip(seconds=1.0), SPEC, refuse)
