"""Recordings: real MP4s, read back."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import OutputError
from mer_runtime.inputs.face import Box
from mer_runtime.live.overlay import ACCENT, PANEL_WIDTH
from mer_runtime.live.recording import SAMPLE_RATE, Recorder
from mer_runtime.live.sources import Picture, Sound
from mer_runtime.stream import StreamEvent

RATE = 16_000


def picture(time: float, size: tuple[int, int] = (640, 480), level: int = 40) -> Picture:
    grey = np.full((size[1], size[0], 3), level, np.uint8)
    return Picture(av.VideoFrame.from_ndarray(grey, format="rgb24"), time)


def tone(time: float, seconds: float, rate: int = RATE) -> Sound:
    ticks = np.arange(round(seconds * rate)) / rate + time
    return Sound((0.5 * np.sin(2 * np.pi * 440 * ticks)).astype(np.float32), rate, time)


def answer(time: float, box: Box | None = None) -> StreamEvent:
    probabilities = {"calm": 0.25, "happy": 0.75}
    found = 15 if box else 0
    return StreamEvent(
        end=time,
        label="happy",
        probabilities=probabilities,
        face=box is not None,
        voice=True,
        settled=True,
        filled=1.0,
        faces_found=found,
        box=box,
        track=1,
        age=0.05,
        dropped=0,
    )


def read(path: Path) -> tuple[list[float], list[NDArray[np.uint8]], NDArray[np.float32]]:
    """Times and pictures of the video, samples of the sound (none: empty)."""
    times, pictures, samples = [], [], [np.zeros(0, np.float32)]
    with av.open(str(path)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                times.append(float(frame.time or 0))
                pictures.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            else:
                samples.append(frame.to_ndarray()[0])
    return times, pictures, np.concatenate(samples)


def loudness(samples: NDArray[np.float32], first: float, last: float) -> float:
    return float(np.abs(samples[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)]).max())


def test_pictures_keep_their_times_and_answers(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=False, live=False)
    # A variable rate, as cameras have in bad light; the session is 100 s old.
    times = [100.0, 100.033, 100.1, 100.5, 101.7]
    for time in times:
        recorder.add(picture(time), [answer(time, Box(100, 100, 200, 200))])
    recorder.close()
    got, pictures, samples = read(tmp_path / "out.mp4")
    assert got == pytest.approx([t - 100 for t in times], abs=0.002)  # counted in ms
    assert pictures[0].shape == (480, 640 + PANEL_WIDTH, 3)
    # The box's left edge: chroma is halved and compressed, so about its colour.
    edge = pictures[2][150:250, 99:101].astype(int).mean(axis=(0, 1))
    assert np.abs(edge - ACCENT).max() < 60
    assert not len(samples)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_sound_lies_where_it_was(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=True, live=False)
    for i in range(40):
        recorder.add(picture(i / 10), [])
        # A gap from 1 to 2 s; the rate changes at 3 s.
        if i < 10 or i >= 20:
            recorder.add(tone(i / 10, 0.1, RATE if i < 30 else 44_100), [])
    recorder.close()
    times, _, samples = read(tmp_path / "out.mp4")
    assert len(times) == 40
    # AAC pads up to two frames of 1024 samples at its end.
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.0, abs=0.1)
    for first, last in ((0.1, 0.9), (2.1, 2.9), (3.1, 3.9)):
        assert loudness(samples, first, last) == pytest.approx(0.5, abs=0.1)
    # What AAC smears reaches no further than a frame (21 ms) or two.
    assert loudness(samples, 1.1, 1.9) < 0.01


def test_sound_that_is_late_or_no_number(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=True, live=False)
    recorder.add(picture(0.0), [])
    recorder.add(tone(0.0, 1.0), [])
    recorder.add(tone(0.5, 1.0), [])  # its first half was there before
    broken = np.full(RATE, np.nan, np.float32)
    broken[::2] = np.inf
    recorder.add(Sound(broken, RATE, 1.5), [])
    recorder.add(Sound(np.full(RATE, 7.0, np.float32), RATE, 2.5), [])  # clipped
    recorder.add(picture(1.0), [])
    recorder.close()
    _, _, samples = read(tmp_path / "out.mp4")
    assert len(samples) / SAMPLE_RATE == pytest.approx(3.5, abs=0.1)
    assert np.isfinite(samples).all()
    assert loudness(samples, 1.6, 2.4) < 0.01
    assert np.abs(samples).max() < 1.5  # AAC overshoots an edge


def test_other_sizes_are_fitted_in(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=False, live=False)
    for i, size in enumerate([(640, 480), (200, 480), (1280, 960), (641, 481), (3, 2)]):
        recorder.add(picture(i / 10, size, level=200), [])
    recorder.close()
    _, pictures, _ = read(tmp_path / "out.mp4")
    assert len(pictures) == 5
    bright = [float((p[:, :640].mean(axis=-1) > 120).mean()) for p in pictures]
    # A picture 200 wide fills 200 / 640 of the room, one of the same shape all of it.
    assert bright[:4] == pytest.approx([1.0, 200 / 640, 1.0, 1.0], abs=0.02)


def test_clock_set_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=True, live=False)
    for time in (5.0, 5.1, 3.0, 5.2):
        recorder.add(picture(time), [])
        recorder.add(tone(time, 0.1), [])
    recorder.close()
    assert read(tmp_path / "out.mp4")[0] == pytest.approx([0.0, 0.1, 0.2], abs=0.002)


def test_voice_alone_has_its_waveform_for_a_picture(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", video=False, audio=True, live=False)
    for i in range(100):
        recorder.add(tone(i / 50, 0.02), [answer(i / 50)])
    recorder.close()
    times, pictures, samples = read(tmp_path / "out.mp4")
    assert 18 <= len(times) <= 21  # ten a second
    assert pictures[-1][:, :480].max() > 90
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=0.1)


def test_a_slow_encoder_costs_pictures_not_the_source(tmp_path: Path) -> None:
    """Noise comes faster than any machine encodes them; adding never waits."""
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=False, live=True)
    noise = np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
    for i in range(300):
        recorder.add(Picture(frame, i / 1000), [])
    assert recorder.dropped > 50
    recorder.close()
    assert len(read(tmp_path / "out.mp4")[0]) == 300 - recorder.dropped


@pytest.mark.parametrize("name", ["out.avi", "missing/out.mp4"])
def test_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="can't write"):
        Recorder(tmp_path / name, video=True, audio=True, live=True)
    assert not list(tmp_path.iterdir())


def test_nothing_came(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=True, live=True)
    recorder.add(tone(0.0, 0.1), [])
    with pytest.raises(OutputError, match="nothing came"):
        recorder.close()
    assert not list(tmp_path.iterdir())


def test_earlier_recording_stays_until_the_new_one_is_done(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"earlier")
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=False, live=False)
    recorder.add(picture(0.0), [])
    assert (tmp_path / "out.mp4").read_bytes() == b"earlier"
    recorder.close()
    assert len(read(tmp_path / "out.mp4")[0]) == 1


def test_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: both fail a write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=False, live=False)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(OutputError, match="can't write"):  # noqa: PT012 - either
            for i in range(10):
                recorder.add(Picture(frame, i / 10), [])
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(OutputError):
        recorder.close()
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from tests.runtime.live.test_recording import Recorder, picture, tone
recorder = Recorder({out!r}, video=True, audio=True, live=False)
for i in range(50):
    recorder.add(picture(i / 10), [])
    recorder.add(tone(i / 10, 0.1), [])
while not recorder._queue.empty():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed(tmp_path: Path) -> None:
    """All is there but the last second, under its own name."""
    code = KILLED.format(root=str(Path(__file__).parents[3]), out=str(tmp_path / "out.mp4"))
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    times, _, samples = read(tmp_path / "out.mp4")
    assert times == pytest.approx([i / 10 for i in range(len(times))], abs=0.002)
    assert 3.5 < times[-1] < 5
    assert len(samples) / SAMPLE_RATE > 3.5
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_full_disk_keeps_what_was_recorded(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=False, live=False)
    generator = np.random.default_rng(0)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
        with pytest.raises(OutputError, match="what was recorded until then is in it"):  # noqa: PT012 - either
            for i in range(200):
                noise = generator.integers(0, 256, (240, 320, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
                recorder.add(Picture(frame, i / 10), [])
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(OutputError):
        recorder.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).pts == 0


@pytest.mark.parametrize("limit", [100_000, 300_000, 350_001])
def test_a_limit_of_size_leaves_whole_fragments(tmp_path: Path, limit: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=True, live=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):  # noqa: PT012 - one of them
            for i in range(2000):
                frame = av.VideoFrame.from_ndarray(np.roll(noise, 7 * i, axis=1), format="rgb24")
                recorder.add(Picture(frame, i / 10), [])
                recorder.add(tone(i / 10, 0.1), [])
        with pytest.raises(OutputError, match="File too large"):
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = tmp_path / "out.mp4"
    if found.exists():  # a fragment fitted
        times, _, samples = read(found)  # to its end: a cut fragment can't be decoded
        assert times
        assert len(samples) / SAMPLE_RATE == pytest.approx(times[-1], abs=1.5)
        assert found.stat().st_size < limit
    assert list(tmp_path.iterdir()) == [found] * found.exists()


def test_another_file_every_so_often(tmp_path: Path) -> None:
    (tmp_path / "out-000007.mp4").write_bytes(b"earlier")
    (tmp_path / "out-7.mp4").write_bytes(b"somebody's")
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=True, live=False, every=2.0, keep=2)
    for i in range(70):
        recorder.add(picture(i / 10), [])
        recorder.add(tone(i / 10, 0.1), [])
    recorder.close()
    names = [f"out-{number:06}.mp4" for number in (10, 11)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "out-000010.mp4",
        "out-000011.mp4",
        "out-7.mp4",
    ]
    for name, seconds in zip(names, (2.0, 1.0), strict=True):
        times, _, samples = read(tmp_path / name)
        assert times == pytest.approx([i / 10 for i in range(round(10 * seconds))], abs=0.002)
        assert len(samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.1)


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f".out.{os.getpid()}.part.mp4").symlink_to(tmp_path / "precious")
    recorder = Recorder(tmp_path / "out.mp4", video=True, audio=False, live=False)
    recorder.add(picture(0.0), [])
    recorder.close()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert len(read(tmp_path / "out.mp4")[0]) == 1
