"""Which of several audio tracks is listened to, in a clip and in a stream."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import MissingModalityError, Recognizer, parse_source
from mer_runtime.errors import MediaError
from mer_runtime.inputs.media import read_window
from mer_runtime.live.sources import Sound
from mer_runtime.live.sources.clock import RecordedClock
from mer_runtime.live.sources.container import OpenSource
from mer_runtime.spec import Spec

SPEC = Spec()
RATE = SPEC.audio.sample_rate


def add_harmonics(pitch: float, seconds: float) -> NDArray[np.float64]:
    """A tone with eleven of them, of at most 1."""
    time = np.arange(round(seconds * RATE)) / RATE
    parts = [np.sin(2 * np.pi * pitch * number * time) / number for number in range(1, 12)]
    waves = np.sum(parts, axis=0)
    return np.asarray(waves / np.abs(waves).max())


def voice(seconds: float = 4.0) -> NDArray[np.float32]:
    """Syllables with silences between them, of at most 0.4."""
    tone = add_harmonics(220, seconds)
    shape = np.clip(np.sin(2 * np.pi * 1.3 * np.arange(len(tone)) / RATE), 0, None)
    return np.asarray(0.4 * tone * shape, np.float32)


def hum(seconds: float = 4.0) -> NDArray[np.float32]:
    """Of the mains, as loud as the voice."""
    return np.asarray(0.4 * add_harmonics(50, seconds), np.float32)


def write_tracks(path: Path, tracks: Sequence[NDArray[np.float32]]) -> Path:
    with av.open(str(path), "w") as container:
        streams: list[Any] = [
            container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in tracks
        ]
        for stream, sound in zip(streams, tracks, strict=True):
            for first in range(0, len(sound), RATE):
                chunk = np.ascontiguousarray(sound[None, first : first + RATE])
                frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = RATE, first
                frame.time_base = Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def test_first_track_with_sound(tmp_path: Path) -> None:
    silent = np.zeros(4 * RATE, np.float32)
    path = write_tracks(tmp_path / "clip.mkv", [silent, voice(), 0.5 * voice()])
    window = read_window(path, SPEC)
    assert window.audio_track == 2
    assert window.notes == ("audio track 1 is silent: track 2 was listened to",)
    peaks = [0.0, 0.4, 0.2]
    for track, peak in enumerate(peaks, 1):
        chosen = read_window(path, SPEC, audio_track=track)
        assert chosen.audio_track == track
        assert chosen.notes == ()
        assert chosen.waveform is not None
        assert np.abs(chosen.waveform).max() == pytest.approx(peak, abs=0.01)
    with pytest.raises(MediaError, match="has no audio track 4, but 3"):
        read_window(path, SPEC, audio_track=4)


def test_hum_hides_no_voice_in_a_later_track(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "clip.mkv", [hum(), voice(), 0.5 * voice()])
    window = read_window(path, SPEC)
    assert window.audio_track == 2
    assert window.notes == ("audio track 1 has no voice: track 2 was listened to",)
    silent = np.zeros(4 * RATE, np.float32)
    window = read_window(write_tracks(tmp_path / "none.mkv", [silent, hum(), 0.5 * hum()]), SPEC)
    assert window.audio_track == 2, "the first with sound, where none has a voice"


def test_recogniser_says_which_track(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "clip.mkv", [np.zeros(4 * RATE, np.float32), voice()])
    recognizer = Recognizer.load("ia-int8", prove=False)
    assert recognizer.predict(path).audio_track == 2
    assert recognizer.predict(path).to_dict()["audio_track"] == 2
    recognizer.audio_track = 1
    with pytest.raises(MissingModalityError, match="no sound"):
        recognizer.predict(path)
    assert recognizer.predict(path, audio_track=2).audio_track == 2


def read_stream(path: Path, track: int | None = None) -> list[Any]:
    """The sounds that a stream would be pushed."""
    stop = Event()
    with OpenSource(
        parse_source(str(path)), stop, video=True, audio=True, timeout=5, audio_track=track
    ) as source:
        items = list(source.items(RecordedClock(stop, paced=False)))
    return [item for item in items if isinstance(item, Sound)]


def test_stream_takes_the_first_track_with_sound(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "clip.mkv", [np.zeros(4 * RATE, np.float32), voice()])
    for track, heard in ((None, True), (1, False), (2, True)):
        sounds = [sound.samples for sound in read_stream(path, track)]
        assert bool(np.abs(np.concatenate(sounds)).max() > 0.3) is heard


def test_stream_changes_once_to_the_first_track_with_a_voice(tmp_path: Path) -> None:
    later = np.concatenate([np.zeros(2 * RATE, np.float32), voice(), voice()])
    path = write_tracks(tmp_path / "clip.mkv", [hum(10), later, 0.1 * hum(10)])
    sounds = read_stream(path)
    tracks = [sound.track for sound in sounds]
    change = next(sound.time for sound in sounds if sound.track == 2)
    assert tracks == sorted(tracks), "hum first, then the voice for good"
    assert set(tracks) == {1, 2}
    assert 2 <= change < 5
    assert {sound.track for sound in read_stream(path, 1)} == {1}
    alone = write_tracks(tmp_path / "hum.mkv", [hum(10), 0.1 * hum(10)])
    assert {sound.track for sound in read_stream(alone)} == {1}
