"""Live sessions on the bundle that ships: files, two devices on one clock, stops, recordings."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mer_runtime import OutputError, Recognizer, SpecError
from mer_runtime.live.page import PageServer
from mer_runtime.live.session import Input, LiveSession
from mer_runtime.live.sources import Notice, SourceError, camera, parse_source
from mer_runtime.stream import StreamEvent

MakeClip = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore:the model was trained:mer_runtime.MerWarning")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load("ia-int8", threads=1)


def split(happenings: list[StreamEvent | Notice]) -> tuple[list[StreamEvent], list[str]]:
    """The events, and the states of the notices."""
    events = [h for h in happenings if isinstance(h, StreamEvent)]
    return events, [h.state for h in happenings if isinstance(h, Notice)]


def test_full_window_answers_as_clip_mode(recognizer: Recognizer, sample_clip: Path) -> None:
    """Windows end at multiples of the hop, 0.48 s: the one that ends at 3.84 s is the nearest to
    clip mode's, which is 0.3 s to 3.9 s. A quarter of a slot's shift moves a probability by some
    hundredths; that equal windows answer equally is the stream's own test."""
    session = LiveSession(recognizer, [Input(parse_source(str(sample_clip)))], pace="fast")
    events, states = split(list(session.run()))
    assert states == ["opened", "ended"]
    assert [e.time for e in events[:8]] == pytest.approx([0.48 * (i + 1) for i in range(8)])
    assert events[-1].filled == 1.0
    centre = recognizer.predict(sample_clip)
    nearest = min(events, key=lambda event: abs(event.time - 3.9))
    assert nearest.label == centre.label
    assert nearest.probabilities[centre.label] == pytest.approx(
        centre.probabilities[centre.label], abs=0.15
    )
    statistics = session.statistics
    assert (statistics.frames, statistics.dropped) == (126, 0)


def test_two_devices_share_a_clock(
    recognizer: Recognizer, make_clip: MakeClip, tmp_path: Path, portrait: Any
) -> None:
    """Picture and sound from two pipes, whose own counts begin an hour apart."""
    clips = {
        "camera": make_clip("v.mkv", size=(320, 240), seconds=2.5, audio=False, picture=portrait),
        "microphone": make_clip("a.wav", seconds=2.5, audio_start=0.0),
    }
    for name, clip in clips.items():
        os.mkfifo(tmp_path / name)
        write = (tmp_path / name).write_bytes
        threading.Thread(target=write, args=(clip.read_bytes(),), daemon=True).start()
    session = LiveSession(
        recognizer,
        [
            Input(parse_source(str(tmp_path / "camera")), audio=False),
            Input(parse_source(str(tmp_path / "microphone")), video=False),
        ],
    )
    states = []
    for happening in session.run(60.0):
        if isinstance(happening, Notice):
            states.append(happening.state)
            if states.count("lost") == 2:  # both writers have gone
                session.stop()
    assert states.count("opened") == 2
    assert session.statistics.frames == 75
    assert session.statistics.samples == pytest.approx(2.5 * 48_000, abs=1)


def test_camera_that_is_not_there_yet_holds_up_nothing(
    recognizer: Recognizer, make_clip: MakeClip, tmp_path: Path
) -> None:
    clip = make_clip("a.wav", seconds=3.0)
    os.mkfifo(tmp_path / "microphone")
    write = (tmp_path / "microphone").write_bytes
    threading.Thread(target=write, args=(clip.read_bytes(),), daemon=True).start()
    page = PageServer(0, "127.0.0.1", {})
    sources = [
        Input(camera("77"), audio=False),
        Input(parse_source(str(tmp_path / "microphone")), video=False),
    ]
    session = LiveSession(recognizer, sources, wait=True, page=page)
    ticks = []
    happenings = []
    for happening in session.run(60.0, on_tick=lambda: ticks.append(1)):
        happenings.append(happening)
        if isinstance(happening, StreamEvent) and happening.time > 2:
            session.stop()
    page.close()
    events, states = split(happenings)
    assert {"waiting", "opened"} <= set(states)
    assert events[-1].voice
    assert not events[-1].face
    assert events[-1].audio_track == 1
    assert events[-1].notes == ("there is no picture in this window",)
    assert len(ticks) > 3
    assert session.monitor.describe_health()["status"] == "ended"
    assert page.monitor is session.monitor


def test_waiting_ends_after_seconds_and_by_stop(recognizer: Recognizer) -> None:
    session = LiveSession(recognizer, [Input(camera("77"), audio=False)], wait=True)
    (notice,) = session.run(1.0)
    assert isinstance(notice, Notice)
    assert notice.state == "waiting"
    assert notice.reason.startswith("there is no such camera")


def test_recording_shows_what_was_answered(
    recognizer: Recognizer, sample_clip: Path, tmp_path: Path
) -> None:
    session = LiveSession(
        recognizer,
        [Input(parse_source(str(sample_clip)))],
        pace="fast",
        record=tmp_path / "out.mp4",
    )
    list(session.run())
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(list(container.decode(video=0))) == 126
        container.seek(0)
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48_000 == pytest.approx(4.2, abs=0.1)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_stop_finishes_in_good_order(
    recognizer: Recognizer, sample_clip: Path, tmp_path: Path
) -> None:
    session = LiveSession(
        recognizer,
        [Input(parse_source(str(sample_clip)))],
        pace="real",
        record=tmp_path / "out.mp4",
    )
    happenings = []
    for happening in session.run():
        happenings.append(happening)
        if isinstance(happening, StreamEvent):
            session.stop()
    events, _ = split(happenings)
    assert events
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert 5 < len(list(container.decode(video=0))) < 120


def test_ends_after_seconds(recognizer: Recognizer, sample_clip: Path) -> None:
    session = LiveSession(recognizer, [Input(parse_source(str(sample_clip)))], pace="real")
    list(session.run(1.0))
    assert session.statistics.frames < 90


def test_left_in_the_middle(recognizer: Recognizer, sample_clip: Path, tmp_path: Path) -> None:
    """Who stops reading leaves a finished recording all the same."""
    session = LiveSession(
        recognizer,
        [Input(parse_source(str(sample_clip)))],
        pace="real",
        record=tmp_path / "out.mp4",
    )
    run = session.run()
    while not isinstance(next(run), StreamEvent):
        pass
    run.close()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_page_is_told(recognizer: Recognizer, sample_clip: Path) -> None:
    page = PageServer(0, "127.0.0.1", {})
    try:
        source = Input(parse_source(str(sample_clip)))
        session = LiveSession(recognizer, [source], pace="fast", page=page)
        events, _ = split(list(session.run()))
        told, messages = page.board.messages(0, 0.0)
        assert told == len(messages) == len(events) + 3
        assert messages[0].startswith("event: source\n")
        assert messages[1] == 'event: media\ndata: {"video": true, "audio": true}\n\n'
        number, jpeg = page.board.jpeg(0, 0.0)
        assert number == 126
        assert jpeg[:2] == b"\xff\xd8"
    finally:
        page.close()


@pytest.mark.parametrize("kind", ["silence", "clipped", "no numbers"])
def test_odd_sound_goes_through(recognizer: Recognizer, make_clip: MakeClip, kind: str) -> None:
    ticks = np.arange(3 * 16_000) / 16_000
    wave = {"silence": 0.0, "clipped": 50.0, "no numbers": 0.5}[kind] * np.sin(3000 * ticks)
    wave *= np.cos(2 * np.pi * 4 * ticks) > -0.5  # syllables
    if kind == "no numbers":
        wave[::100], wave[1::100] = np.nan, np.inf
    clip = make_clip("odd.mkv", video=False, waveform=wave, sample_rate=16_000, audio_codec="flac")
    if kind != "silence":
        clip = make_clip("odd.wav", waveform=wave, sample_rate=16_000, audio_codec="pcm_f32le")
    session = LiveSession(recognizer, [Input(parse_source(str(clip)))], pace="fast")
    events, _ = split(list(session.run()))
    assert len(events) >= 6
    assert all(event.voice is (kind != "silence") for event in events)
    assert all((event.label is None) is (kind == "silence") for event in events)
    assert session.statistics.non_finite == (960 if kind == "no numbers" else 0)


class TestBadInput:
    def test_missing_file(self, recognizer: Recognizer, tmp_path: Path) -> None:
        source = Input(parse_source(str(tmp_path / "x.mp4")))
        session = LiveSession(recognizer, [source], pace="fast", record=tmp_path / "out.mp4")
        with pytest.raises(SourceError, match="no such file"):
            list(session.run())
        assert not list(tmp_path.iterdir())

    def test_hop_that_does_not_fit(self, recognizer: Recognizer, sample_clip: Path) -> None:
        source = Input(parse_source(str(sample_clip)))
        with pytest.raises(SpecError, match="hop must be a multiple"):
            list(LiveSession(recognizer, [source], pace="fast", hop=0.3).run())

    def test_recording_elsewhere(self, recognizer: Recognizer, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="no such folder"):
            LiveSession(recognizer, [], record=tmp_path / "missing" / "out.mp4")

    def test_recorder_that_fails_ends_the_session(
        self, recognizer: Recognizer, sample_clip: Path, tmp_path: Path
    ) -> None:
        """Its folder disappears while it records."""
        (tmp_path / "deeper").mkdir()
        source = Input(parse_source(str(sample_clip)))
        session = LiveSession(
            recognizer, [source], pace="fast", record=tmp_path / "deeper" / "out.mp4"
        )
        run = session.run()
        while not isinstance(next(run), StreamEvent):
            pass
        (tmp_path / "deeper").rename(tmp_path / "elsewhere")
        with pytest.raises(OutputError, match="can't write"):
            list(run)
