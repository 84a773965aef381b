"""Real files of every container through ``read_window``, checked by what was put into them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.listing import MEDIA_SUFFIXES
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import AudioSpec, Spec, VideoSpec

MakeClip = Callable[..., Path]
ReadNumber = Callable[[NDArray[np.uint8]], int]

SPEC = Spec()
RATE = SPEC.audio.sample_rate
WINDOW = SPEC.audio.window


def expected_numbers(duration: float, fps: float, count: int, first: float = 0.0) -> list[int]:
    """Numbers of the frames on screen at the middle of each slot, by the window's definition.

    Args:
        first: seconds of the clip's first moment on the frames' clock.
    """
    start = first + (duration - WINDOW) / 2
    times = start + (np.arange(15) + 0.5) * WINDOW / 15
    # A frame is on screen from its own time on; 1e-6 absorbs binary fractions of a second.
    return [int(np.clip(np.floor(time * fps + 1e-6), 0, count - 1)) for time in times]


def onset(waveform: NDArray[np.float32]) -> float:
    """Seconds into the window at which the sound begins: first sample above half its peak."""
    loud = np.flatnonzero(np.abs(waveform) > 0.5 * np.abs(waveform).max())
    return float(loud[0]) / RATE


# --- containers ---------------------------------------------------------------------------


#: Containers whose codecs keep times and levels well enough to be held to.
EXACT_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".wav", ".flac", ".mp3")


@pytest.mark.parametrize("suffix", EXACT_SUFFIXES)
def test_every_container(suffix: str, make_clip: MakeClip, read_frame_number: ReadNumber) -> None:
    path = make_clip(f"clip{suffix}", seconds=5.0, steady=True)
    window = read_window(path, SPEC)
    # Lossy audio codecs pad the last packet: at most 0.06 s (two MP3 or Opus frames).
    assert window.duration == pytest.approx(5.0, abs=0.06)
    assert window.waveform is not None
    assert window.waveform.shape == (SPEC.audio.samples,)
    assert window.waveform.dtype == np.float32
    # 440 Hz at amplitude 0.5 in every 60 ms. MP3 loses 5 %, and FFmpeg's AAC encoder swings by
    # 20 % here and there on a pure tone; a gap or a wrong scale would be far outside.
    rms = np.sqrt(np.mean(window.waveform.reshape(-1, 960) ** 2, axis=1))
    assert np.median(rms) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)
    np.testing.assert_allclose(rms, 0.5 / np.sqrt(2), rtol=0.25)
    spectrum = np.abs(np.fft.rfft(window.waveform))
    assert np.argmax(spectrum) * RATE / len(window.waveform) == pytest.approx(440, abs=1)
    if suffix in (".wav", ".flac", ".mp3"):
        assert window.frames is None
        return
    assert window.frames is not None
    assert window.frames.shape == (15, 120, 160, 3)
    assert window.frames.dtype == np.uint8
    with av.open(str(path)) as container:
        # Opus begins before its first sample that counts: FFmpeg 7 says so, FFmpeg 8 doesn't.
        first = min(float((s.start_time or 0) * s.time_base) for s in container.streams)
    wanted = expected_numbers(window.duration, 30, 150, first)
    assert [read_frame_number(frame) for frame in window.frames] == wanted


@pytest.mark.parametrize("suffix", sorted({*MEDIA_SUFFIXES, ".ts"} - {*EXACT_SUFFIXES}))
def test_every_other_container(
    suffix: str, make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    """What phones, camcorders and older systems write: the same moment, give or take a frame."""
    window = read_window(
        make_clip(f"clip{suffix}", seconds=5.0, size=(176, 144), steady=True), SPEC
    )
    assert window.duration == pytest.approx(5.0, abs=0.3)  # AC-3 and WMA pad
    assert window.notes == ()
    assert window.waveform is not None
    rms = np.sqrt(np.mean(window.waveform.reshape(-1, 960) ** 2, axis=1))
    assert np.median(rms) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    if window.frames is None:
        assert suffix in (".m4a", ".aac", ".ogg", ".opus", ".wma", ".aiff")
        return
    numbers = np.array([read_frame_number(frame) for frame in window.frames])
    # Frame 75 is in the middle of 5 s; padding moves that by half of itself.
    assert numbers[7] == pytest.approx(75, abs=5)
    np.testing.assert_allclose(np.diff(numbers), 0.24 * 30, atol=1)


def test_upper_case_suffix(make_clip: MakeClip) -> None:
    path = make_clip(seconds=1.0)
    path = path.rename(path.with_suffix(".MP4"))
    assert read_window(path, SPEC).frames is not None


def test_path_may_be_text_or_not_ascii(make_clip: MakeClip) -> None:
    path = make_clip(seconds=1.0)
    path = path.rename(path.with_name("clip é 表 %d.mp4"))
    assert read_window(str(path), SPEC).frames is not None


# --- the window ---------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [3.6, 3.5, 4.1, 6.0, 17.0, 30.0])
def test_frames_are_the_middle_of_each_slot(
    seconds: float, make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    path = make_clip("clip.mkv", seconds=seconds, size=(160, 64))
    window = read_window(path, SPEC)
    assert window.duration == pytest.approx(seconds, abs=0.04)  # a frame, at most
    wanted = expected_numbers(window.duration, 30, round(seconds * 30))
    assert [read_frame_number(frame) for frame in window.frames] == wanted


def test_short_clip_is_centred_and_padded(
    make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    window = read_window(make_clip("clip.mkv", seconds=1.0), SPEC)
    numbers = [read_frame_number(frame) for frame in window.frames]
    assert numbers[0] == 0
    assert numbers[-1] == 29
    assert numbers == expected_numbers(1.0, 30, 30)
    sounding = np.flatnonzero(window.waveform)
    # 1.3 s of silence, 1 s of tone, 1.3 s of silence; the resampler rings a few samples.
    assert sounding[0] / RATE == pytest.approx(1.3, abs=0.005)
    assert sounding[-1] / RATE == pytest.approx(2.3, abs=0.005)


def test_very_short_clip(make_clip: MakeClip, read_frame_number: ReadNumber) -> None:
    window = read_window(make_clip("clip.mkv", seconds=1 / 30, audio=False), SPEC)
    assert {read_frame_number(frame) for frame in window.frames} == {0}


def test_other_frame_counts_and_windows(make_clip: MakeClip, read_frame_number: ReadNumber) -> None:
    spec = Spec(
        audio=AudioSpec(window=2.0, sample_rate=8000), video=VideoSpec(window=2.0, frames=4)
    )
    window = read_window(make_clip("clip.mkv", seconds=4.0), spec)
    # Middles of four slots of 0.5 s from 1.0 s on: 1.25, 1.75, 2.25, 2.75 s.
    assert [read_frame_number(frame) for frame in window.frames] == [37, 52, 67, 82]
    assert window.waveform.shape == (16_000,)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".webm"])
@pytest.mark.parametrize("seconds", [2.4, 5.0, 14.0])
def test_step_and_click_coincide(suffix: str, seconds: float, make_clip: MakeClip) -> None:
    """Picture and sound are cut on one clock, codec delays taken off."""
    moment = seconds / 2 + 0.13
    path = make_clip(
        f"clip{suffix}", seconds=seconds, fps=50, flash_at=moment, click_at=moment, size=(64, 48)
    )
    window = read_window(path, SPEC)
    bright = window.frames.mean(axis=(1, 2, 3)) > 127
    first = int(np.argmax(bright))
    assert 0 < first < 15
    assert bright[first:].all()
    # The step lies between two used frames, 0.24 s apart: the click's place bounds it.
    heard = onset(window.waveform)
    # Exactly where it was put: centre of the window + 0.13 s. 30 ms: an MP3's or Opus's packet
    # makes the clip's end, so its middle, uncertain by half of that; codecs smear a click.
    assert heard == pytest.approx(WINDOW / 2 + 0.13, abs=0.03)
    slot = SPEC.video.slot
    assert (first - 0.5) * slot - 0.03 <= heard <= (first + 0.5) * slot + 0.03


def test_variable_frame_rate(make_clip: MakeClip, read_frame_number: ReadNumber) -> None:
    """Frames come by their time, not by their number."""
    # One second at 60 fps, then 3 s at 4 fps, then at 25 fps.
    times = [*np.arange(60) / 60, *(1 + np.arange(12) / 4), *(4 + np.arange(25) / 25)]
    path = make_clip("clip.mkv", times=times, seconds=5.0)
    window = read_window(path, SPEC)
    moments = (window.duration - WINDOW) / 2 + (np.arange(15) + 0.5) * WINDOW / 15
    # Matroska stores milliseconds.
    wanted = [int(np.searchsorted(np.round(times, 3), t + 1e-4, "right")) - 1 for t in moments]
    assert [read_frame_number(frame) for frame in window.frames] == wanted


@pytest.mark.parametrize("fps", [5, 2, 1])
def test_low_frame_rate_repeats_frames(
    fps: int, make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    path = make_clip("clip.mkv", fps=fps, seconds=4.0)
    window = read_window(path, SPEC)
    wanted = expected_numbers(window.duration, fps, 4 * fps)
    assert [read_frame_number(frame) for frame in window.frames] == wanted


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("late", [{"audio_start": 0.7}, {"video_start": 0.7}])
def test_stream_that_starts_late(
    suffix: str, late: dict[str, float], make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    path = make_clip(f"clip{suffix}", seconds=3.0, **late)
    window = read_window(path, SPEC)
    # Clock: 0 to 3.7 s; the window begins at 0.05 s.
    assert window.duration == pytest.approx(3.7, abs=0.06)
    start = (window.duration - WINDOW) / 2
    if "audio_start" in late:
        heard = np.flatnonzero(np.abs(window.waveform) > 0.1)[0] / RATE
        # AAC rings before its first sample.
        assert heard == pytest.approx(0.7 - start, abs=0.03)
        assert read_frame_number(window.frames[0]) == int((start + 0.12) * 30)
    else:
        assert np.abs(window.waveform[: RATE // 10]).max() > 0.3
        slots = start + (np.arange(15) + 0.5) * SPEC.video.slot
        wanted = [max(0, int(np.floor((time - 0.7) * 30 + 1e-6))) for time in slots]
        wanted = [min(number, 89) for number in wanted]
        assert [read_frame_number(frame) for frame in window.frames] == wanted


def test_both_streams_start_late(make_clip: MakeClip, read_frame_number: ReadNumber) -> None:
    """Cut out of a longer recording: time stamps don't begin at 0."""
    path = make_clip("clip.mkv", seconds=5.0, video_start=40.0, audio_start=40.0)
    window = read_window(path, SPEC)
    assert window.duration == pytest.approx(5.0, abs=0.04)
    wanted = expected_numbers(window.duration, 30, 150)
    assert [read_frame_number(frame) for frame in window.frames] == wanted
    assert np.abs(window.waveform[-RATE // 10 :]).max() > 0.4


# --- pictures -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_clip_is_upright(
    suffix: str, rotation: int, make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    path = make_clip(f"clip{suffix}", size=(96, 160), seconds=4.0, rotation=rotation)
    window = read_window(path, SPEC)
    assert window.frames.shape == (15, 160, 96, 3)
    wanted = expected_numbers(window.duration, 30, 120)
    assert [read_frame_number(frame) for frame in window.frames] == wanted


@pytest.mark.parametrize("size", [(161, 121), (63, 48), (160, 33), (33, 161)])
def test_odd_sizes(
    size: tuple[int, int], make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    window = read_window(make_clip("clip.mp4", size=size, seconds=4.0), SPEC)
    assert window.frames.shape == (15, size[1], size[0], 3)
    wanted = expected_numbers(window.duration, 30, 120)
    assert [read_frame_number(frame) for frame in window.frames] == wanted


def test_colours_are_rgb(make_clip: MakeClip) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[..., 0], picture[..., 1] = 220, 40
    window = read_window(make_clip(picture=picture, size=(128, 128), seconds=1.0), SPEC)
    red, green, blue = window.frames[0][16, 64].astype(int)
    # Chroma subsampling and the BT.601 range cost a few levels.
    assert red == pytest.approx(220, abs=12)
    assert green == pytest.approx(40, abs=12)
    assert blue == pytest.approx(0, abs=12)


# --- missing streams ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov", ".webm"])
def test_silent_video(suffix: str, make_clip: MakeClip) -> None:
    window = read_window(make_clip(f"clip{suffix}", audio=False, seconds=4.0), SPEC)
    assert window.waveform is None
    assert window.frames is not None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_in_a_video_container(suffix: str, make_clip: MakeClip) -> None:
    window = read_window(make_clip(f"clip{suffix}", video=False, seconds=4.0), SPEC)
    assert window.frames is None
    assert np.abs(window.waveform).max() > 0.4


def test_cover_art_is_no_video(
    tmp_path: Path, portrait: NDArray[np.uint8], make_clip: MakeClip
) -> None:
    plain = make_clip("plain.mp3", seconds=4.0)
    with av.open(str(plain)) as source, av.open(str(tmp_path / "art.mp3"), "w") as out:
        audio = out.add_stream_from_template(source.streams.audio[0])
        picture: Any = out.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 128, 128, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic.value
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(portrait[:128, 128:256]), "rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        for packet in [*picture.encode(frame), *picture.encode(None)]:
            out.mux(packet)
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = audio
                out.mux(packet)
    with av.open(str(tmp_path / "art.mp3")) as container:
        assert len(container.streams.video) == 1  # the file really has the picture
    window = read_window(tmp_path / "art.mp3", SPEC)
    assert window.frames is None
    assert np.abs(window.waveform).max() > 0.4


# --- the corpora --------------------------------------------------------------------------


@pytest.mark.corpus
def test_corpus_clip_against_soxr(corpus: Path) -> None:
    """The same window as PyAV decodes and soxr resamples, done here by hand."""
    soxr = pytest.importorskip("soxr", reason="soxr (of librosa) is the oracle")
    path = sorted(corpus.glob("Actor_01/01-01-*.mp4"))[3]
    window = read_window(path, SPEC)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        pieces = [frame.to_ndarray().mean(axis=0) for frame in container.decode(stream)]
        rate = stream.sample_rate
    mono = soxr.resample(np.concatenate(pieces), rate, RATE)
    start = round((window.duration - WINDOW) / 2 * RATE)
    oracle = mono[max(start, 0) : start + len(window.waveform)]
    got = window.waveform[max(-start, 0) :][: len(oracle)]
    # A sample of rounding at the start is allowed: the best of three alignments.
    errors = [
        np.abs(got[1:-1] - oracle[1 + k : len(oracle) - 1 + k or None]).max() for k in (-1, 0)
    ]
    assert min(errors) < 0.02 * np.abs(oracle).max()


@pytest.mark.corpus
def test_real_ravdess_files(shared: Path) -> None:
    paths = [p for p in (shared / "data" / "ravdess-real").rglob("*") if p.suffix in MEDIA_SUFFIXES]
    assert paths
    for path in paths:
        window = read_window(path, SPEC)
        assert 2 < window.duration < 6
        assert (window.frames is not None) == (path.suffix == ".mp4")
        if window.waveform is not None:
            assert np.abs(window.waveform).max() > 0.001
