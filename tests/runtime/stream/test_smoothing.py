"""Probabilities averaged over time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stream_clips import run, speech

from mer_runtime import Recognizer
from mer_runtime.stream import StreamEvent


def test_smoothing_averages_over_time(tiny: Recognizer) -> None:
    loud = [
        ("sound", (content[0] * (1 + i % 13), content[1]), at)
        for i, (_, content, at) in enumerate(speech(10.0))
    ]
    raw = run(tiny, loud, video=False)
    smooth = run(tiny, loud, video=False, smoothing=1.5)
    average = np.array(list(raw[0].probabilities.values()))
    for last, one, other in zip(raw, raw[1:], smooth[1:], strict=False):
        kept = np.exp((last.time - one.time) / 1.5)  # the last hop is shorter than 0.6 s
        average = kept * average + (1 - kept) * np.array(list(one.probabilities.values()))
        assert list(other.probabilities.values()) == pytest.approx(average.tolist())
        assert other.label == tiny.spec.labels[int(average.argmax())]


def test_smoothed_answers_are_as_close_as_they_are_shown(
    write_tiny_bundle: Callable[..., Path],
) -> None:
    """Some smoothed answers are close calls where the window's own isn't, and the other way."""
    loud = [
        ("sound", (content[0] * (1 + i % 13), content[1]), at)
        for i, (_, content, at) in enumerate(speech(10.0))
    ]
    plain = Recognizer.load(write_tiny_bundle(), threads=1)

    def gap(event: StreamEvent) -> float:
        second, first = sorted(event.probabilities.values())[-2:]
        return float(plain.bundle.temperatures.audio * np.log(first / second))

    middle = float(np.median([gap(event) for event in run(plain, loud, video=False)]))
    margins = dict.fromkeys(("both", "audio", "video"), middle * (1 + 1e-6))
    recognizer = Recognizer.load(write_tiny_bundle("close", doubtful_margins=margins), threads=1)
    for smoothing in (0.0, 1.5):
        events = run(recognizer, loud, video=False, smoothing=smoothing)
        assert [e.settled for e in events] == [gap(e) > margins["audio"] for e in events]
        assert len({e.settled for e in events}) == 2, "the margin decides nothing"


def test_smoothing_begins_anew_after_a_jump(tiny: Recognizer) -> None:
    clip = speech(4.2)
    later = [(kind, content, at + 500) for kind, content, at in clip]
    events = run(tiny, clip + later, video=False, smoothing=5.0)
    half = len(events) // 2
    for one, other in zip(events[:half], events[half:], strict=True):
        assert one.probabilities == pytest.approx(other.probabilities)
