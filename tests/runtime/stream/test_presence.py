"""What a stream says of faces and voices that are missing, frozen, changed or only noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_clips import BLANK, Picture, place, run, show, speech, together

from mer_runtime import Recognizer
from mer_runtime.inputs.face import Box, HaarDetector, YuNetDetector


def test_silence_is_a_missing_voice(tiny: Recognizer, head: Picture) -> None:
    picture = place(head, 100)
    clip = together(show(picture, 0, 12), speech(2.0), speech(12, level=0)[20:])
    events = run(tiny, clip, detector=HaarDetector())
    assert [e.voice for e in events] == [e.time < 2.0 + 3.6 for e in events]
    assert all(e.face for e in events)
    only_face = run(tiny, show(picture, 0, 12), detector=HaarDetector(), audio=False)
    assert only_face[-1].probabilities == pytest.approx(events[-1].probabilities)


def test_a_lost_face_is_missing_after_a_window(tiny: Recognizer, head: Picture) -> None:
    clip = together(show(place(head, 100), 0, 4), show(BLANK, 4, 12), speech(12))
    events = run(tiny, clip, detector=HaarDetector())
    # Slot 12 (3.6 to 3.9 s) is the last with a face; slot 13's middle is at 4.05 s.
    assert [e.face for e in events] == [e.time < 3.9 + 3.6 for e in events]
    assert [e.faces_found for e in events][:10:3] == [12, 12, 11, 5]
    assert events[-1].box is None
    assert events[-1].track is None
    assert all(e.voice and e.label for e in events)


def test_neither_is_said(tiny: Recognizer) -> None:
    events = run(tiny, together(show(BLANK, 0, 2), speech(2, level=0)), detector=HaarDetector())
    assert {(e.label, e.face, e.voice, e.settled, len(e.probabilities)) for e in events} == {
        (None, False, False, False, 0)
    }
    assert json.loads(json.dumps(events[0].to_dict()))["label"] is None


def test_close_calls_are_told(write_tiny_bundle: Callable[..., Path], head: Picture) -> None:
    """By how far apart the classes must be where that is shown: here the voice alone never is."""
    margins = {"both": 0.0, "audio": 1e3, "video": 0.0}
    recognizer = Recognizer.load(write_tiny_bundle(doubtful_margins=margins), threads=1)
    clip = together(show(place(head, 100), 0, 4), show(BLANK, 4, 12), speech(12))
    events = run(recognizer, clip, detector=HaarDetector())
    assert {(e.face, e.settled) for e in events} == {(True, True), (False, False)}
    assert [e.to_dict()["settled"] for e in events] == [e.settled for e in events]


def test_a_camera_that_vanishes_shows_nothing(tiny: Recognizer, head: Picture) -> None:
    clip = together(show(place(head, 100), 0, 4), speech(12))
    events = run(tiny, clip, detector=HaarDetector())
    # The last frame stays on screen for half a window, but a window of it alone is frozen.
    assert [e.face for e in events] == [e.time <= 3.6 + 3.6 for e in events]


def test_a_frozen_picture_is_no_face(tiny: Recognizer, head: Picture) -> None:
    frozen = [("frame", place(head, 100), i / 10) for i in range(40, 120)]
    events = run(tiny, together(show(place(head, 100), 0, 4), frozen, speech(12)))
    # Until no used frame from before 4 s is left but the last.
    assert [e.face for e in events] == [e.time <= 4.0 + 3.6 for e in events]
    assert events[-1].faces_found == events[-1].people == 0
    assert all(e.voice for e in events)


@pytest.mark.parametrize("sound", ["last bit", "hum", "hiss"])
def test_noise_is_no_voice(tiny: Recognizer, head: Picture, sound: str) -> None:
    generator = np.random.default_rng(4)
    ticks = np.arange(96_000) / 16_000
    made = {
        "last bit": generator.integers(-1, 2, 96_000) / 32_768,
        "hum": 0.1 * np.sign(np.sin(2 * np.pi * 50 * ticks)),
        "hiss": generator.normal(0, 10 ** (-70 / 20), 96_000),
    }[sound].astype(np.float32)
    noise = [("sound", (made[i : i + 1600], 16_000), i / 16_000) for i in range(0, 96_000, 1600)]
    picture = show(place(head, 100), 0, 6)
    events = run(tiny, together(picture, noise))
    assert not any(e.voice for e in events)
    silent = run(tiny, picture, audio=False)
    assert events[-1].probabilities == pytest.approx(silent[-1].probabilities)


def test_frames_may_change_size(tiny: Recognizer, head: Picture) -> None:
    large = place(head, 100)
    small = np.asarray(cv2.resize(large, (480, 120)), np.uint8)
    clip = together(show(large, 0, 3), show(small[:, :300], 3, 6), show(BLANK, 6, 7), speech(7))
    events = run(tiny, clip, detector=HaarDetector())
    assert all(e.face for e in events)
    boxes = {round(e.time, 1): e.box for e in events}
    first, second, third = boxes[3.0], boxes[6.0], boxes[6.6]
    assert first
    assert second
    assert third
    assert second.width == pytest.approx(first.width / 2, rel=0.3)
    # Nearest in time is a frame of 300 x 120; here it is 960 x 240.
    assert third.width == pytest.approx(second.width * 3.2)
    assert {e.track for e in events if e.time < 3} == {1}


def test_all_faces_get_their_own_answer(tiny: Recognizer, head: Picture, yunet: Path) -> None:
    red = head.copy()
    red[..., 1:] //= 4
    both = place(head, 100)
    both[20:220, 600:800] = place(red, 600)[20:220, 600:800]
    detector = YuNetDetector(yunet)
    assert len(detector.detect_all(both)) == 2
    clip = show(both, 0, 4) + show(place(head, 100), 4, 12)
    events = run(tiny, clip, detector=detector, faces="all", audio=False)
    times = sorted({round(e.time, 3) for e in events})
    by_time = {t: [e for e in events if round(e.time, 3) == t] for t in times}
    full = by_time[3.6]
    assert [e.track for e in full] == [1, 2]
    boxes = sorted(full, key=lambda e: e.box.x if e.box else 0)
    # Each face's answer is that of a stream which shows it alone.
    for event, picture in zip(boxes, (place(head, 100), place(red, 600)), strict=True):
        alone = run(tiny, show(picture, 0, 4), detector=detector, audio=False)
        other = next(e for e in alone if e.time == event.time)
        # Another face in the frame moves YuNet's box by a pixel.
        assert event.probabilities == pytest.approx(other.probabilities, abs=0.01)
    assert boxes[0].probabilities != pytest.approx(boxes[1].probabilities, abs=0.05)
    # The second goes, and its track with it.
    assert [len(by_time[t]) for t in times][-1] == 1


def test_one_face_is_followed(tiny: Recognizer, head: Picture) -> None:
    class Two(HaarDetector):
        """The face at the left, and from 2 s on a larger one at the right."""

        shown = 0

        def detect_all(self, frame: Picture) -> list[Box]:
            self.shown += 1
            left = Box(100 + 2 * self.shown, 40, 100, 100)
            return [Box(600, 20, 180, 180), left] if self.shown > 7 else [left]

    events = run(tiny, together(show(BLANK, 0, 6), speech(6)), detector=Two())
    assert {e.track for e in events} == {1}
    assert all(e.box and e.box.x < 200 for e in events)


def test_a_cut_to_somebody_else(tiny: Recognizer, head: Picture) -> None:
    other = np.ascontiguousarray(head[:, ::-1, ::-1])
    other[:, :120] //= 3
    clip = show(place(head, 100), 0, 6) + show(place(other, 100), 6, 12)
    events = run(tiny, clip, audio=False)
    assert {e.track for e in events} == {1, 2}
    assert [e.track for e in events] == sorted(e.track for e in events)
    change = next(e for e in events if e.track == 2)
    # It stays with the first one while she is seen half as long as the other.
    assert 6 + 1.8 < change.time < 6 + 3.6
    assert {e.people for e in events} == {1, 2}
    # All of a window is of one person: in the last but one of the first's, she was still seen.
    alone = run(tiny, show(place(head, 100), 0, 12), audio=False)
    at = events.index(change) - 1
    assert events[at].probabilities == pytest.approx(alone[at].probabilities, abs=0.02)
