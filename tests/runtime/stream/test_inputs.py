"""Frames, sound, times and options that a stream mends or refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stream_clips import BLANK, push, run, speech

from mer_runtime import Recognizer, SpecError
from mer_runtime.inputs.face import HaarDetector
from mer_runtime.stream import StreamRecognizer


def test_bad_samples_leave_answers_finite(tiny: Recognizer) -> None:
    clip = speech(5.0)
    broken = np.array(clip[10][1][0])
    broken[::3] = np.nan
    broken[1::3] = np.inf
    clip[10] = ("sound", (broken, 16_000), 1.0)
    clip[20] = ("sound", (np.full(1600, 50.0, np.float32), 16_000), 2.0)
    clip[30] = ("sound", (clip[30][1][0][: 1600 * 11_025 // 16_000], 11_025), 3.0)
    with StreamRecognizer(tiny, live=False, video=False) as stream:
        events = push(stream, clip)
        assert all(np.isfinite(list(e.probabilities.values())).all() for e in events)
        assert stream.statistics.non_finite == 534 + 533
        assert stream.statistics.rates == 2
    assert len(events) == 8


def test_empty_chunks_and_long_ones(tiny: Recognizer) -> None:
    sound = np.concatenate([content[0] for _, content, _ in speech(30.0)])
    with StreamRecognizer(tiny, live=False, video=False) as stream:
        stream.push_audio(sound[:0], 16_000, 0.0)
        stream.push_audio(sound, 16_000, 0.0)
        events = list(stream.events())
    # A chunk longer than the ring is no different from short ones.
    expected = run(tiny, speech(30.0), video=False)
    assert len(events) == len(expected) == 50
    for event, other in zip(events, expected, strict=True):
        assert event.probabilities == pytest.approx(other.probabilities)


@pytest.mark.parametrize(
    ("image", "at"),
    [
        (np.zeros((4, 4), np.uint8), 0.0),
        (np.zeros((4, 4, 4), np.uint8), 0.0),
        (np.zeros((4, 4, 3), np.float32), 0.0),
        (np.zeros((0, 4, 3), np.uint8), 0.0),
        ("frame", 0.0),
        (np.zeros((4, 4, 3), np.uint8), float("nan")),
        (np.zeros((4, 4, 3), np.uint8), "1"),
        (np.zeros((4, 4, 3), np.uint8), None),
    ],
)
def test_what_is_no_frame_is_refused(tiny: Recognizer, image: Any, at: float) -> None:
    with (
        StreamRecognizer(tiny, live=False, detector=HaarDetector()) as stream,
        pytest.raises(SpecError, match="must be"),
    ):
        stream.push_frame(image, at)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros((1, 1, 1), np.float32), 16_000),
        (np.zeros(4, np.complex64), 16_000),
        (np.zeros(4, np.bool_), 16_000),
        ([0.0], 16_000),
        (np.zeros(4, np.float32), 0),
        (np.zeros(4, np.float32), -16_000),
        (np.zeros(4, np.float32), 16_000.5),
        (np.zeros(4, np.float32), None),
    ],
)
def test_what_is_no_sound_is_refused(tiny: Recognizer, samples: Any, rate: int) -> None:
    with (
        StreamRecognizer(tiny, live=False, video=False) as stream,
        pytest.raises(SpecError, match="must be"),
    ):
        stream.push_audio(samples, rate, 0.0)


def test_too_many_channels(recognizer: Recognizer) -> None:
    stream = StreamRecognizer(recognizer, live=False)
    with stream, pytest.raises(SpecError, match="channels"):
        stream.push_audio(np.zeros((65, 100), np.float32), 16_000, 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"hop": 0.5},
        {"hop": 0.0},
        {"hop": -0.3},
        {"hop": 3.9},
        {"hop": float("nan")},
        {"smoothing": -1.0},
        {"smoothing": float("inf")},
        {"faces": "some"},
        {"video": False, "audio": False},
        {"origin": float("inf")},
    ],
)
def test_options_out_of_range_are_refused(tiny: Recognizer, options: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        StreamRecognizer(tiny, **options)
    assert "\n" not in str(caught.value)
    if "hop" in options:
        assert "0.3, 0.6, 0.9" in str(caught.value)


def test_a_kind_that_was_ruled_out_is_refused(tiny: Recognizer) -> None:
    with (
        StreamRecognizer(tiny, live=False, video=False) as stream,
        pytest.raises(SpecError, match="without video"),
    ):
        stream.push_frame(BLANK, 0.0)
    with (
        StreamRecognizer(tiny, live=False, audio=False, detector=HaarDetector()) as stream,
        pytest.raises(SpecError, match="without audio"),
    ):
        stream.push_audio(np.zeros(4, np.float32), 16_000, 0.0)


@pytest.mark.parametrize("time_", [1e25, -1e25, 2e10, float("inf"), float("nan")])
def test_times_that_no_clock_shows(recognizer: Recognizer, time_: float) -> None:
    """Beyond some time a slot is lost in rounding, and counting slots would never end."""
    with StreamRecognizer(recognizer, live=False) as stream:
        with pytest.raises(SpecError, match="a time on the stream's clock"):
            stream.push_audio(np.zeros(1600, np.float32), 16_000, time_)
        with pytest.raises(SpecError, match="a time on the stream's clock"):
            stream.push_frame(np.zeros((4, 4, 3), np.uint8), time_)


@pytest.mark.parametrize("time_", [1e10, -1e10])
def test_latest_times(recognizer: Recognizer, time_: float) -> None:
    tone = np.sin(np.arange(8000) * 0.2).astype(np.float32)
    with StreamRecognizer(recognizer, live=False, video=False) as stream:
        for i in range(10):
            stream.push_audio(tone, 16_000, time_ + (0.5 * i if time_ < 0 else 0.5 * i - 5))
        stream.finish()
        assert len(list(stream.events())) >= 9
