"""The live recogniser on real clips, with a real engine: equal to clip mode, and unbreakable."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import MerError, Recognizer, SpecError
from mer_runtime.inputs.face import (
    DETECTOR_VARIABLE,
    Box,
    FaceDetector,
    HaarDetector,
    YuNetDetector,
)
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.waveform import mix_down
from mer_runtime.stream import StreamEvent, StreamRecognizer
from mer_runtime.stream.audio_ring import Conversion

pytestmark = pytest.mark.filterwarnings("ignore:the model was trained:mer_runtime.MerWarning")

Picture = NDArray[np.uint8]
Clip = list[tuple[str, Any, float]]

#: Logits' float rounding, in probabilities: a batch of two crops is summed in another order
#: than one of fifteen.
ROUNDING = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _no_detector_variable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DETECTOR_VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    """The shipped int8 bundle: 15 crops of 224 pixels, slots of 0.24 s."""
    return Recognizer.load("ia-int8", threads=1)


@pytest.fixture
def tiny(write_tiny_bundle: Callable[..., Path]) -> Recognizer:
    """A quick bundle: 12 crops of 32 pixels, slots of 0.3 s, a hop of 0.6 s."""
    return Recognizer.load(write_tiny_bundle(), threads=1)


@pytest.fixture(scope="module")
def head(portrait: Picture) -> Picture:
    """Head and shoulders, (240, 240, 3)."""
    return np.ascontiguousarray(portrait[:240, 100:340])


def decode(path: Path) -> Clip:
    """What a clip holds: ``frame`` (H, W, 3) or ``sound`` (n,), in the file's order."""
    content: Clip = []
    with av.open(str(path)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                content.append(("frame", frame.to_ndarray(format="rgb24"), frame.time))
            else:
                content.append(("sound", (mix_down(frame), frame.sample_rate), frame.time))
    return content


def push(stream: StreamRecognizer, clip: Clip) -> list[StreamEvent]:
    """Push all of it; the events so far, if the stream isn't live."""
    events = []
    for kind, content, at in clip:
        if kind == "frame":
            stream.push_frame(content, at)
        else:
            stream.push_audio(*content, at)
        if not stream.live:
            events += stream.events()
    return events


def run(recognizer: Recognizer, clip: Clip, **options: Any) -> list[StreamEvent]:
    """All events of a clip, as fast as possible."""
    with StreamRecognizer(recognizer, live=False, **options) as stream:
        events = push(stream, clip)
        stream.finish()
        return events + list(stream.events())


def speech(seconds: float, rate: int = 16_000, chunk: float = 0.1, level: float = 0.3) -> Clip:
    """A hoarse voice of four syllables a second, in chunks."""
    generator = np.random.default_rng(3)
    size, count = round(chunk * rate), round(seconds / chunk)
    ticks = np.arange(size * count) / rate
    voiced = np.sin(2 * np.pi * 220 * ticks) + 0.5 * np.sin(2 * np.pi * 660 * ticks)
    hoarse = voiced + generator.normal(0, 0.2, len(ticks))
    sound = level * hoarse * (0.5 + 0.5 * np.cos(2 * np.pi * 4 * ticks))
    parts = sound.astype(np.float32).reshape(count, size)
    return [("sound", (part, rate), i * chunk) for i, part in enumerate(parts)]


def show(picture: Picture, since: float, until: float, fps: int = 10) -> Clip:
    """A picture for a while; a patch in its corner tells that it moves on."""
    frames: Clip = []
    for i in range(round(since * fps), round(until * fps)):
        shown = picture.copy()
        shown[:12, :12] = 50 * (i % 5)
        frames.append(("frame", shown, i / fps))
    return frames


def together(*clips: Clip) -> Clip:
    """Several clips at once, in order of time."""
    return sorted((item for clip in clips for item in clip), key=lambda item: item[2])


def place(head: Picture, *lefts: int, side: int = 200) -> Picture:
    """The head, ``side`` pixels wide, at some places of a plain wide frame."""
    frame = np.full((240, 960, 3), 110, np.uint8)
    for left in lefts:
        frame[20 : 20 + side, left : left + side] = cv2.resize(head, (side, side))
    return frame


BLANK = np.full((240, 960, 3), 110, np.uint8)


# --- equal to clip mode -------------------------------------------------------------------


def centre_start(path: Path, recognizer: Recognizer) -> float:
    """Where clip mode's window of a clip begins that starts at 0."""
    return (read_window(path, recognizer.spec).duration - recognizer.spec.video.window) / 2


def assert_same(event: StreamEvent, prediction: Any) -> None:
    assert event.filled == 1
    assert event.label == prediction.label
    assert (event.face, event.voice) == (prediction.face, prediction.voice)
    assert event.faces_found == prediction.faces_found
    assert event.settled == prediction.settled
    assert list(event.probabilities.values()) == pytest.approx(
        list(prediction.probabilities.values()), abs=ROUNDING
    )


@pytest.mark.parametrize("hop", [0.24, 0.72])
def test_full_window_equals_clip_mode(
    recognizer: Recognizer, sample_clip: Path, hop: float
) -> None:
    start = centre_start(sample_clip, recognizer)
    events = run(recognizer, decode(sample_clip), hop=hop, origin=start)
    event = next(e for e in events if e.filled == 1)
    assert event.time == pytest.approx(start + 3.6)
    looking = Recognizer(recognizer.bundle, recognizer.backend, threads=1, detect_every=1)
    assert_same(event, looking.predict(sample_clip))
    followed = recognizer.predict(sample_clip)
    assert (followed.label, followed.people) == (event.label, event.people)


@pytest.mark.corpus
@pytest.mark.parametrize("number", [40, 100])
def test_corpus_equals_clip_mode(
    recognizer: Recognizer, corpus: Path, yunet: Path, number: int
) -> None:
    path = sorted(corpus.rglob("*.mp4"))[number]
    detector = YuNetDetector(yunet)
    seeing = Recognizer(recognizer.bundle, recognizer.backend, detector, detect_every=1)
    events = run(seeing, decode(path), hop=0.24, origin=centre_start(path, seeing))
    assert_same(next(e for e in events if e.filled == 1), seeing.predict(path))


def test_lost_face_takes_the_nearest_box_as_in_clip_mode(
    tiny: Recognizer, head: Picture, make_clip: Callable[..., Path]
) -> None:
    # The head is there for a second, gone for one, and elsewhere for the last.
    pictures = [place(head, 100), BLANK, BLANK, place(head, 700)]
    path = make_clip("clip.mkv", video_codec="ffv1", size=(960, 240), fps=10, seconds=4.0)
    clip = together(
        *(show(p, i, i + 1) for i, p in enumerate(pictures)),
        [item for item in decode(path) if item[0] == "sound"],
    )
    write_frames(path, clip)
    start = centre_start(path, tiny)
    clip = decode(path)
    events = run(tiny, clip, hop=0.3, origin=start)
    expected = tiny.predict(path)
    assert 4 <= expected.faces_found <= 8
    assert_same(next(e for e in events if e.filled == 1), expected)


def write_frames(path: Path, clip: Clip) -> None:
    """Write pictures and sound without loss."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=10)
        video.width, video.height, video.pix_fmt = 960, 240, "bgr0"
        audio = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for kind, content, at in clip:
            if kind == "frame":
                frame: Any = av.VideoFrame.from_ndarray(content, format="rgb24")
                frame.pts = round(at * 10)
                container.mux(video.encode(frame))
            else:
                frame = av.AudioFrame.from_ndarray(content[0][None], format="flt", layout="mono")
                frame.sample_rate, frame.pts = content[1], round(at * content[1])
                container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def test_chunks_order_and_threads_do_not_matter(recognizer: Recognizer, sample_clip: Path) -> None:
    clip = decode(sample_clip)
    expected = run(recognizer, clip, hop=0.72)
    # All sound in 7 ms chunks, stereo, in whole numbers; each kind from a thread of its own.
    sound = np.concatenate([content[0] for kind, content, _ in clip if kind == "sound"])
    rate = next(content[1] for kind, content, _ in clip if kind == "sound")
    generator = np.random.default_rng(0)
    side = generator.normal(0, 0.01, len(sound)).astype(np.float32)
    stereo = np.stack([sound + side, sound - side])
    step = round(0.007 * rate)
    first_sound = next(at for kind, _, at in clip if kind == "sound")
    with StreamRecognizer(recognizer, hop=0.72) as stream:
        began = time.monotonic()

        def pace(at: float) -> None:
            # Twice as fast as life: the engine must not be behind, or it would skip.
            time.sleep(max(began + at / 2 - time.monotonic(), 0))

        def speak() -> None:
            for first in range(0, len(sound), step):
                at = first_sound + first / rate
                pace(at)
                stream.push_audio(stereo[:, first : first + step], rate, at)

        def film() -> None:
            for kind, content, at in clip:
                if kind == "frame":
                    pace(at)
                    stream.push_frame(lambda image=content: image, at)

        threads = [threading.Thread(target=target) for target in (speak, film)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stream.finish()
        events = list(stream.events())
    by_time = {round(e.time, 3): e for e in expected}
    assert events[-1].time == pytest.approx(expected[-1].time)
    full = [e for e in events if e.filled == 1]
    assert full
    for event in full if not events[-1].dropped else ():
        assert list(event.probabilities.values()) == pytest.approx(
            # The channels' mean rounds in the 7th digit, which MFCCs of quiet frames magnify.
            list(by_time[round(event.time, 3)].probabilities.values()),
            abs=1e-3,
        )


def test_a_crop_is_encoded_once(recognizer: Recognizer, sample_clip: Path) -> None:
    with StreamRecognizer(recognizer, live=False) as stream:
        events = push(stream, decode(sample_clip))
        stream.finish()
        events += stream.events()
        assert len(events) == 9
        # 4.2 s are 17.5 slots, rounded to 18, and the first frame stands in for those before.
        assert stream.statistics.crops == 19
        assert stream.statistics.used == 19


# --- missing and strange input ------------------------------------------------------------


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


# --- several faces, smoothing -------------------------------------------------------------


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


# --- live ---------------------------------------------------------------------------------


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
    monkeypatch.setattr("mer_runtime.stream.recognizer.UNREAD", 4)
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


# --- presence and identity, as in clip mode -----------------------------------------------


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


def test_too_many_channels(recognizer: Recognizer) -> None:
    stream = StreamRecognizer(recognizer, live=False)
    with stream, pytest.raises(SpecError, match="channels"):
        stream.push_audio(np.zeros((65, 100), np.float32), 16_000, 0.0)
