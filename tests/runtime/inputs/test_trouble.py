"""One stream's trouble isn't the other's, levels stay, and the answer says what was amiss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import Recognizer
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.timeline import Timeline
from mer_runtime.inputs.waveform import ChannelMixer, choose_mix
from mer_runtime.spec import Spec
from mer_runtime.stream import StreamRecognizer

MakeClip = Callable[..., Path]
ReadNumber = Callable[[NDArray[np.uint8]], int]
SPEC = Spec()
RATE = SPEC.audio.sample_rate


def voice(rate: int = RATE, seconds: float = 4.0) -> NDArray[np.float32]:
    ticks = np.arange(round(rate * seconds)) / rate
    shape = np.clip(np.sin(2 * np.pi * 1.3 * ticks), 0, None)  # with silences in it
    return (0.4 * shape * np.sin(2 * np.pi * 220 * ticks)).astype(np.float32)


# --- the camera -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("late", [3.0, 40.0])
def test_camera_that_begins_long_after_the_sound(
    suffix: str, late: float, make_clip: MakeClip
) -> None:
    path = make_clip(f"clip{suffix}", times=late + np.arange(60) / 30, seconds=late + 3.0)
    window = read_window(path, SPEC)
    assert window.waveform is not None
    assert window.waveform.any()
    if late > 10:
        assert window.frames is None
        assert "there is no picture from" in window.notes[0]
        return
    assert window.frames is not None
    assert window.notes == ()


def gap_times(first: float, last: float, seconds: float) -> list[float]:
    """30 frames a second, but none between two moments."""
    times = np.arange(round(seconds * 30)) / 30
    return [float(t) for t in times if not first < t < last]


def test_camera_that_stops_in_mid_clip(make_clip: MakeClip, read_frame_number: ReadNumber) -> None:
    """Its frozen frame counts for half a window, and then the face is missing."""
    # The window is 13.2 to 16.8 s; frames stop at 12 s and go on at 16 s.
    path = make_clip("clip.mkv", times=gap_times(12.0, 16.0, 30.0), seconds=30.0)
    window = read_window(path, SPEC)
    assert window.frames is not None
    assert window.shown is not None
    middles = (window.duration - 3.6) / 2 + (np.arange(15) + 0.5) * 0.24
    expected = (middles <= 12.0 + 1.8) | (middles >= 16.0)
    np.testing.assert_array_equal(window.shown, expected)
    # The nearest frame that was on screen stands in.
    numbers = [read_frame_number(frame) for frame in window.frames]
    shown = np.flatnonzero(expected)
    for i in np.flatnonzero(~expected):
        assert numbers[i] == numbers[min(shown, key=lambda k: (abs(k - i), k))]
    missing, rest = window.notes
    assert missing == f"the picture stands still or is missing in {(~expected).sum()} of 15 frames"
    assert rest.startswith("only 13.2 to 16.8 s of its 30.0 s were looked at")


def test_camera_that_is_off_for_the_whole_window(make_clip: MakeClip) -> None:
    path = make_clip("clip.mkv", times=gap_times(5.0, 25.0, 30.0), seconds=30.0)
    window = read_window(path, SPEC)
    assert window.frames is None
    assert window.waveform is not None
    missing, rest = window.notes
    assert missing == "there is no picture from 13.2 to 16.8 s, the window"
    assert rest.startswith("only 13.2 to 16.8 s of its 30.0 s were looked at")


def test_frozen_frames_are_no_findings(
    make_clip: MakeClip, portrait: NDArray[np.uint8], yunet: Path
) -> None:
    path = make_clip("clip.mkv", times=gap_times(12.0, 16.0, 30.0), seconds=30.0, picture=portrait)
    recognizer = Recognizer.load("ia-int8", detector=yunet, prove=False)
    prediction = recognizer.predict(path)
    assert prediction.face
    assert 0 < prediction.faces_found < 15
    assert prediction.to_dict()["notes"] == list(prediction.notes) != []


# --- clocks ---------------------------------------------------------------------------------


def write_jump(path: Path, source: Path, at: float, by: float) -> Path:
    """The packets of a clip, whose clock jumps at a moment."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as container:
        outs = {s.index: container.add_stream_from_template(s) for s in clip.streams}
        for packet in clip.demux():
            if packet.dts is None:
                continue
            if packet.dts * packet.time_base >= at:
                ticks = round(by / packet.time_base)
                packet.pts += ticks
                packet.dts += ticks
            packet.stream = outs[packet.stream.index]
            container.mux(packet)
    return path


@pytest.mark.parametrize("by", [36_000.0, 25.0])
@pytest.mark.parametrize(("audio", "video"), [(True, True), (False, True), (True, False)])
def test_clock_that_leaps(
    by: float,
    audio: bool,
    video: bool,
    make_clip: MakeClip,
    read_frame_number: ReadNumber,
    tmp_path: Path,
) -> None:
    """Ten hours in mid-stream, as where a camera set its clock: the clip goes on all the same."""
    plain = make_clip("plain.ts", seconds=8.0, audio=audio, video=video)
    before = read_window(plain, SPEC)
    window = read_window(write_jump(tmp_path / "jump.ts", plain, 5.0, by), SPEC)
    assert window.duration == pytest.approx(before.duration, abs=0.3)
    assert any("its clock jumps by" in note for note in window.notes)
    if video:
        assert window.frames is not None
        assert before.frames is not None
        assert read_frame_number(window.frames[7]) == pytest.approx(
            read_frame_number(before.frames[7]), abs=6
        )
    if audio:
        assert window.waveform is not None
        assert np.abs(window.waveform).max() > 0.4


@pytest.mark.parametrize("by", [36_000.0, 5.0, 0.0])
def test_clock_that_is_set_back(
    by: float, make_clip: MakeClip, read_frame_number: ReadNumber, tmp_path: Path
) -> None:
    """Two recordings in one file: frames stay in order, whichever of them is answered."""
    plain = make_clip("plain.ts", seconds=6.0)
    later = write_jump(tmp_path / "later.ts", plain, 0.0, by)
    path = tmp_path / "back.ts"
    path.write_bytes(later.read_bytes() + plain.read_bytes())
    window = read_window(path, SPEC)
    assert window.frames is not None
    assert window.waveform is not None
    assert np.abs(window.waveform).max() > 0.4
    numbers = [read_frame_number(frame) for frame in window.frames]
    # In order but for the one step from the first recording to the second.
    assert (np.diff(numbers) < 0).sum() <= 1


class Packet:
    """What of a packet the timeline looks at."""

    def __init__(self, stream: int, time: float, length: float = 0.02) -> None:
        self.stream = type("Stream", (), {"index": stream})
        self.time_base = Fraction(1, 1000)
        self.dts: int | None = round(time * 1000)
        self.pts: int | None = self.dts
        self.duration = round(length * 1000)


def follow(timeline: Timeline, packets: Sequence[tuple[int, float]]) -> list[float]:
    made = [Packet(stream, time) for stream, time in packets]
    return [(p.pts or 0) / 1000 for p in timeline.follow(made)]


def test_streams_that_jump_stay_together() -> None:
    """The sound jumps a few packets after the picture: both by the same."""
    packets = [(0, 1.0), (1, 1.0), (0, 901.02), (1, 1.02), (1, 901.04), (0, 901.04)]
    timeline = Timeline(1.8)
    assert follow(timeline, packets) == [1.0, 1.0, 1.02, 1.02, 1.04, 1.04]
    assert timeline.jumps == [(1.02, 900.0)]


def test_streams_of_one_clock_are_left_alone() -> None:
    packets = [(0, 0.0), (1, 40.0), (1, 40.02), (0, 0.02), (0, 0.04)]  # not interleaved
    timeline = Timeline()
    assert follow(timeline, packets) == [time for _, time in packets]
    assert timeline.jumps == []


@pytest.mark.parametrize("start", [-3.0, 90_000.0])
def test_clip_whose_clock_does_not_begin_at_zero(start: float, make_clip: MakeClip) -> None:
    path = make_clip("clip.mkv", seconds=4.0, video_start=max(start, 0), audio_start=max(start, 0))
    window = read_window(path, SPEC)
    assert window.frames is not None
    assert window.notes == ()


def test_stream_without_time_stamps(tmp_path: Path) -> None:
    """A raw H.264 stream has none: its frames count one after the other."""
    path = tmp_path / "clip.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(100):
            pixels = np.full((48, 64, 3), 2 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    window = read_window(path, SPEC)
    assert window.frames is not None
    shades = window.frames.mean(axis=(1, 2, 3))
    assert (np.diff(shades) > 0).all()


# --- damage in one stream -------------------------------------------------------------------


def damage(path: Path, kind: str) -> None:
    """Overwrite what packets of a stream hold."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        packets = [bytes(p) for p in container.demux(stream) if p.size]
    data = bytearray(path.read_bytes())
    at = 0
    for packet in packets:
        at = data.index(packet, at)
        data[at + 4 : at + len(packet)] = bytes([31] * (len(packet) - 4))
    path.write_bytes(data)


def test_damaged_picture_beside_good_sound(make_clip: MakeClip) -> None:
    path = make_clip("clip.mkv", seconds=4.0)
    damage(path, "video")
    window = read_window(path, SPEC)
    assert window.frames is None
    assert window.waveform is not None
    assert np.abs(window.waveform).max() > 0.4
    assert any(note.startswith("its video can't be decoded") for note in window.notes)


def test_damaged_sound_beside_a_good_picture(make_clip: MakeClip) -> None:
    path = make_clip("clip.mkv", seconds=4.0, audio_codec="flac")
    damage(path, "audio")
    window = read_window(path, SPEC)
    assert window.frames is not None
    assert window.waveform is None or not window.waveform.any()
    assert any("its sound" in note for note in window.notes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_not_numbers(value: float, make_clip: MakeClip) -> None:
    sound = voice()
    options = {"sample_rate": RATE, "audio_codec": "pcm_f32le"}
    good = read_window(make_clip("good.mkv", waveform=sound, **options), SPEC)
    sound[RATE * 2] = value
    window = read_window(make_clip("bad.mkv", waveform=sound, **options), SPEC)
    assert window.frames is not None
    assert window.waveform is not None
    assert good.waveform is not None
    assert np.count_nonzero(window.waveform != good.waveform) <= 1
    assert window.notes == ("samples of its sound that aren't numbers (1) count as silence",)


# --- channels and tracks --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".mkv", ".flac"])
@pytest.mark.parametrize("other", [-1.0, -0.95])
def test_channels_in_opposite_phase(suffix: str, other: float, make_clip: MakeClip) -> None:
    sound = voice()
    path = make_clip(
        f"clip{suffix}",
        waveform=np.stack([sound, other * sound]),
        sample_rate=RATE,
        layout="stereo",
        video=False,
    )
    window = read_window(path, SPEC)
    assert window.waveform is not None
    middle = sound[round(0.2 * RATE) :][: len(window.waveform)]
    np.testing.assert_allclose(window.waveform, middle / 2, atol=2 / 32768)
    assert window.notes == ("its channels cancel each other out: one of them was taken",)


def test_other_channels_are_averaged() -> None:
    generator = np.random.default_rng(1)
    left, right = generator.normal(0, 0.1, (2, RATE)).astype(np.float32)
    silent = np.zeros(RATE, np.float32)
    for channels in ([left, right], [left, silent], [left] + 63 * [silent], [left, -0.5 * left]):
        data = np.stack(channels)
        mono, cancelled = choose_mix(*ChannelMixer().mix(data, RATE))
        assert not cancelled
        np.testing.assert_array_equal(mono, data.mean(axis=0, dtype=np.float32))


def test_stream_hears_channels_in_opposite_phase() -> None:
    """As the clip does, in whatever chunks they come."""
    sound = voice()
    recognizer = Recognizer.load("ia-int8", prove=False)
    answers = []
    for channels in (np.stack([sound, -sound]), sound[None] / 2):
        with StreamRecognizer(recognizer, live=False, video=False) as stream:
            for first in range(0, channels.shape[1], 777):
                part = channels[:, first : first + 777]
                stream.push_audio(part, RATE, first / RATE)
            stream.finish()
            answers.append([event.probabilities for event in stream.events()])
    assert len(answers[0]) > 5
    for heard, expected in zip(*answers, strict=True):
        assert heard == pytest.approx(expected, abs=1e-6)
