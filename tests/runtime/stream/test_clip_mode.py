"""A stream on real clips, with a real engine: equal to clip mode."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stream_clips import BLANK, Clip, Picture, decode, place, push, run, show, together

from mer_runtime import Recognizer
from mer_runtime.inputs.face import YuNetDetector
from mer_runtime.inputs.media import read_window
from mer_runtime.stream import StreamEvent, StreamRecognizer

pytestmark = pytest.mark.filterwarnings("ignore:the model was trained:mer_runtime.MerWarning")

#: Logits' float rounding, in probabilities: a batch of two crops is summed in another order
#: than one of fifteen.
ROUNDING = 1e-5


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
