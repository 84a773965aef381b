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

from mer_runtime.errors import FaceDetectorError, MediaError
from mer_runtime.inputs.listing import MEDIA_SUFFIXES
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.picks import FramePicks
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


# --- sound --------------------------------------------------------------------------------


def voice(sample_rate: int, seconds: float = 4.0) -> NDArray[np.float64]:
    """Partials of a gliding pitch up to 3.4 kHz: a signal that any resampler must keep."""
    ticks = np.arange(round(sample_rate * seconds)) / sample_rate
    phase = 2 * np.pi * np.cumsum(150 + 50 * np.sin(2 * np.pi * 0.7 * ticks)) / sample_rate
    signal = sum(np.sin(k * phase) / k for k in range(1, 17))
    return 0.5 * signal / np.abs(signal).max()


@pytest.mark.parametrize("rate", [8000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_resampling_against_soxr(rate: int, make_clip: MakeClip) -> None:
    soxr = pytest.importorskip("soxr", reason="soxr (of librosa) is the oracle")
    waveform = voice(rate)
    window = read_window(make_clip("clip.wav", waveform=waveform, sample_rate=rate), SPEC)
    start = round(0.2 * RATE)
    # 16 bits, as the file holds them.
    stored = np.round(waveform * 32767) / 32768
    oracle = soxr.resample(stored, rate, RATE, quality="VHQ")[start : start + len(window.waveform)]
    # Below the transition bands the two differ by 16-bit rounding and libswresample's
    # shorter filter: -46 dB of the peak here, and by no delay, which would be far above.
    error = np.abs(window.waveform - oracle)
    assert error.max() < 0.005


def test_same_rate_is_untouched(make_clip: MakeClip) -> None:
    waveform = voice(RATE)
    window = read_window(make_clip("clip.wav", waveform=waveform, sample_rate=RATE), SPEC)
    middle = waveform[round(0.2 * RATE) :][: len(window.waveform)]
    # One step of 16 bits: FFmpeg's converter rounds to even, the encoder scales by 32767.
    np.testing.assert_allclose(window.waveform, middle, atol=2 / 32768)


def test_resampling_does_not_alias(make_clip: MakeClip) -> None:
    """12 kHz can't be held at 16 kHz; it must vanish, not fold to 4 kHz."""
    ticks = np.arange(4 * 48_000) / 48_000
    tone = 0.5 * np.sin(2 * np.pi * 12_000 * ticks)
    window = read_window(make_clip("clip.wav", waveform=tone, sample_rate=48_000), SPEC)
    inner = window.waveform[RATE // 10 : -RATE // 10]
    assert np.abs(inner).max() < 0.005


def test_stereo_is_averaged(make_clip: MakeClip) -> None:
    left, right = voice(RATE), 0.3 * np.cos(2 * np.pi * 300 * np.arange(4 * RATE) / RATE)
    path = make_clip(
        "clip.wav", waveform=np.stack([left, right]), sample_rate=RATE, layout="stereo"
    )
    window = read_window(path, SPEC)
    middle = ((left + right) / 2)[round(0.2 * RATE) :][: len(window.waveform)]
    np.testing.assert_allclose(window.waveform, middle, atol=2 / 32768)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mkv"])
def test_surround_is_averaged(suffix: str, make_clip: MakeClip) -> None:
    channels = np.zeros((6, 4 * RATE))
    channels[2] = 0.9 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)  # the centre speaks
    path = make_clip(
        f"clip{suffix}", waveform=channels, sample_rate=RATE, layout="5.1", video=suffix == ".mkv"
    )
    window = read_window(path, SPEC)
    # The mean of six channels of which one sounds; FLAC and PCM are exact to 16 bits.
    assert np.abs(window.waveform).max() == pytest.approx(0.15, abs=0.001)


@pytest.mark.parametrize("gain", [1.0, 4.0, 100.0])
def test_levels_are_kept(gain: float, make_clip: MakeClip) -> None:
    """A float file may hold more than full scale; only its level differs then."""
    plain = voice(48_000).astype(np.float32)
    options = {"sample_rate": 48_000, "audio_codec": "pcm_f32le"}
    quiet = read_window(make_clip("quiet.wav", waveform=plain, **options), SPEC).waveform
    loud = read_window(make_clip("loud.wav", waveform=gain * plain, **options), SPEC).waveform
    assert quiet is not None
    assert loud is not None
    np.testing.assert_allclose(loud, gain * quiet, atol=gain * 1e-6)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"])
def test_sample_formats(codec: str, make_clip: MakeClip) -> None:
    waveform = voice(RATE)
    path = make_clip("clip.wav", waveform=waveform, sample_rate=RATE, audio_codec=codec)
    window = read_window(path, SPEC)
    middle = waveform[round(0.2 * RATE) :][: len(window.waveform)]
    # A step of 8 bits is 1/128; dither doesn't enter.
    atol = 1.5 / 128 if codec == "pcm_u8" else 2 / 32768
    np.testing.assert_allclose(window.waveform, middle, atol=atol)


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


# --- bad files ----------------------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo[MediaError], path: Path) -> str:
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", EXACT_SUFFIXES)
def test_empty_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    assert "empty" in one_line(error, path)


@pytest.mark.parametrize("suffix", MEDIA_SUFFIXES)
def test_text_under_a_media_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_text("This is a letter, not a clip.\n" * 40)
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    one_line(error, path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_window(tmp_path / "missing.mp4", SPEC)
    with pytest.raises(MediaError, match="folder"):
        read_window(tmp_path, SPEC)


def test_truncated_mp4_without_its_index(make_clip: MakeClip) -> None:
    """An MP4's index lies at the end: half a file can't be read at all."""
    path = make_clip("clip.mp4", seconds=5.0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    one_line(error, path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_matroska_gives_what_is_left(
    share: float, make_clip: MakeClip, read_frame_number: ReadNumber
) -> None:
    path = make_clip("clip.mkv", seconds=8.0)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    window = read_window(path, SPEC)
    # The centre of what is left, not of what the header promises.
    numbers = [read_frame_number(frame) for frame in window.frames]
    left = window.duration
    assert left == pytest.approx(8.0 * share, abs=0.8)
    middle = numbers[7] / 30
    assert middle == pytest.approx(left / 2, abs=0.1)


def test_noise_inside_the_file_is_survived_or_refused(make_clip: MakeClip) -> None:
    """Flipped bytes give frames or a MediaError; nothing else may escape."""
    generator = np.random.default_rng(3)
    original = make_clip("clip.mp4", seconds=3.0).read_bytes()
    for attempt in range(12):
        data = bytearray(original)
        for at in generator.integers(32, len(data), 200):
            data[at] = generator.integers(256)
        path = make_clip("broken.mp4", seconds=0.1)
        path.write_bytes(data)
        try:
            window = read_window(path, SPEC)
        except MediaError:
            continue
        assert window.frames is not None or window.waveform is not None, attempt
        if window.waveform is not None:
            assert np.isfinite(window.waveform).all()


def test_header_without_frames(tmp_path: Path) -> None:
    """A recorder that died at once: a valid header and nothing in it."""
    path = tmp_path / "clip.wav"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        container.start_encoding()
        assert stream is not None
    assert path.stat().st_size > 0
    with pytest.raises(MediaError) as error:
        read_window(path, SPEC)
    one_line(error, path)


# --- frames that aren't decoded -------------------------------------------------------------


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


# --- the corpora --------------------------------------------------------------------------


@pytest.mark.corpus
def test_corpus_clip_against_librosa(corpus: Path) -> None:
    """The same window as PyAV decodes and librosa resamples, done here by hand."""
    librosa = pytest.importorskip("librosa")
    path = sorted(corpus.glob("Actor_01/01-01-*.mp4"))[3]
    window = read_window(path, SPEC)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        pieces = [frame.to_ndarray().mean(axis=0) for frame in container.decode(stream)]
        rate = stream.sample_rate
    mono = librosa.resample(np.concatenate(pieces), orig_sr=rate, target_sr=RATE)
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
