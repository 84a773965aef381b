"""A stream whose engine has a thread of its own: pushing never waits, and it ends well."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from stream_clips import BLANK, Picture, place, push, show, speech, together

from mer_runtime import MerError, Recognizer, SpecError
from mer_runtime.inputs.face import Box, FaceDetector, HaarDetector
from mer_runtime.stream import StreamEvent, StreamRecognizer
from mer_runtime.stream.audio_ring import Conversion


class HeldDetector(HaarDetector):
    """A detector on a device that is far too slow: it answers when it is let go.

    Attributes:
        calls: how many pictures it was given.
    """

    def __init__(self, released: threading.Event) -> None:
        super().__init__()
        self.calls = 0
        self._released = released

    def detect_all(self, frame: Picture) -> list[Box]:
        self.calls += 1
        self._released.wait(60)
        return [Box(100, 40, 100, 100)]


def test_pushing_never_waits_and_the_oldest_frames_go(tiny: Recognizer) -> None:
    pushed = threading.Event()
    with StreamRecognizer(tiny, detector=HeldDetector(pushed)) as stream:
        # The detector is at its first frame all the while: a push that waited would never end.
        for kind, content, at in together(show(BLANK, 0, 60), speech(60)):
            if kind == "frame":
                stream.push_frame(content, at)
            else:
                stream.push_audio(*content, at)
        pushed.set()
        stream.finish()
        events = list(stream.events())
        statistics = stream.statistics
    assert statistics.dropped > 150
    assert statistics.skipped > 50
    assert events[-1].time == pytest.approx(60.0)
    assert events[-1].dropped == statistics.dropped
    assert events[-1].face
    times = [e.time for e in events]
    assert times == sorted(set(times))


def test_rate_changes_outside_the_lock(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held is resampled while other threads push: here one does so from within."""
    pushed: list[bool] = []
    run_conversion = Conversion.run

    def run(conversion: Conversion) -> NDArray[np.float32]:
        picture = np.zeros((8, 8, 3), np.uint8)
        other = threading.Thread(target=stream.push_frame, args=(picture, 0.6), daemon=True)
        other.start()
        other.join(10.0)
        pushed.append(not other.is_alive())  # else it waits for the lock
        return run_conversion(conversion)

    monkeypatch.setattr(Conversion, "run", run)
    with StreamRecognizer(recognizer, live=False) as stream:
        stream.push_audio(np.zeros(8000, np.float32), 16_000, 0.0)
        stream.push_audio(np.zeros(384_000, np.float32), 768_000, 0.5)
        assert stream.statistics.rates == 1
    assert pushed == [True]


def test_age_is_measured_from_the_last_arrival(
    tiny: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything arrives as it is stamped, and the answers are given at 100 s."""
    now = 0.0
    monkeypatch.setattr("mer_runtime.stream.recognizer.monotonic", lambda: now)
    monkeypatch.setattr("mer_runtime.stream.engine.monotonic", lambda: 100.0)
    with StreamRecognizer(tiny, live=False, hop=1.2) as stream:
        for _, content, now in show(BLANK, 0, 2.6):
            stream.push_frame(content, now)
            stream.push_audio(np.full(1600, 0.1, np.float32), 16_000, now)
        stream.finish()
        events = list(stream.events())
    assert len(events) >= 2
    # A window's last sound comes in the 0.1 s before its end.
    assert all(100 - e.time <= e.age <= 100 - e.time + 0.2 for e in events)


def test_events_go_to_a_callback(tiny: Recognizer) -> None:
    events: list[StreamEvent] = []
    with StreamRecognizer(tiny, live=False, video=False, on_event=events.append) as stream:
        push(stream, speech(3.0))
        stream.finish()
        assert list(stream.events()) == []
    assert len(events) == 5


def test_unread_events_do_not_pile_up(tiny: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mer_runtime.stream.event_queue.UNREAD", 4)
    with StreamRecognizer(tiny, video=False) as stream:
        for _, content, at in speech(9.0):
            stream.push_audio(*content, at)
            time.sleep(0.005)
        stream.finish()
        events = list(stream.events())
        assert len(events) == 4
        assert events[-1].time == pytest.approx(9.0)
        assert stream.statistics.unread == stream.statistics.events - 4 > 0


def test_an_engine_that_fails_says_so(tiny: Recognizer) -> None:
    with StreamRecognizer(tiny, audio=False, detector=HaarDetector()) as stream:
        stream.push_frame(lambda: np.zeros((2, 2), np.uint8), 0.0)
        with pytest.raises(SpecError, match="a frame must be"):
            list(stream.events())
        stream.push_frame(BLANK, 1.0)  # of no use, and no harm
        with pytest.raises(MerError):
            stream.finish()


def test_closing_stops_at_once_and_twice(tiny: Recognizer) -> None:
    released = threading.Event()
    detector = HeldDetector(released)
    stream = StreamRecognizer(tiny, detector=detector)
    for _, content, at in show(BLANK, 0, 30):
        stream.push_frame(content, at)
    closing = threading.Thread(target=stream.close)
    closing.start()
    list(stream.events())  # ends once it is told to close
    released.set()
    closing.join()
    stream.close()
    assert detector.calls <= tiny.spec.video.frames  # the window that it was at, and no other
    assert threading.active_count() < 20
    list(stream.events())
    stream.push_frame(BLANK, 31.0)
    stream.finish()


@pytest.mark.slow
def test_memory_is_flat(tiny: Recognizer, head: Picture) -> None:
    """The soak of 100 000 hops is ``benchmarks/soak_stream.py``."""
    picture = place(head, 100)
    released = threading.Event()
    released.set()
    detector: FaceDetector = HeldDetector(released)
    samples = speech(0.3, chunk=0.3)[0][1][0]
    objects, resident = [], []
    with StreamRecognizer(tiny, live=False, detector=detector, faces="all") as stream:
        for slot in range(700):
            at = 0.3 * slot - (1e4 if slot > 500 else 0)  # the clock is set back once
            if slot % 50:
                stream.push_frame(picture.copy(), at)
            stream.push_audio(samples, 16_000, at)
            for _ in stream.events():
                pass
            if slot % 100 == 99:
                gc.collect()
                objects.append(len(gc.get_objects()))
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident.append(pages * 4096 / 1e6)
        assert stream.statistics.events >= 300
    # A picture is 0.7 MB: 100 slots of them, or a window's more each time, would show.
    assert resident[-1] - resident[1] < 5
    assert max(objects[1:]) - min(objects[1:]) < 100
