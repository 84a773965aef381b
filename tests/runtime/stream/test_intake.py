"""What the intake gives the engine to do, from well-behaved and from wild sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_runtime.spec import AudioSpec, Spec
from mer_runtime.stream.intake import PATIENCE, WAITING, Intake, Task
from mer_runtime.stream.statistics import StreamStatistics

SPEC = Spec(audio=AudioSpec(sample_rate=8000))
SLOT = SPEC.video.slot
FRAMES = SPEC.video.frames
PICTURE = np.zeros((2, 2, 3), np.uint8)
CHUNK = np.full(800, 0.5, np.float32)  # 0.1 s


def make(hop: int = 2, **options: Any) -> tuple[Intake, StreamStatistics]:
    statistics = StreamStatistics()
    defaults = {"live": False, "video": True, "audio": True, "origin": None}
    return Intake(SPEC, hop, statistics, **(defaults | options)), statistics


def drain(intake: Intake, *, flush: bool = False) -> Iterator[Task]:
    while task := intake.take(flush=flush):
        yield task


def play(
    intake: Intake, since: float, until: float, *, video: bool = True, audio: bool = True
) -> list[Task]:
    """Frames and chunks every 0.1 s, worked off at once."""
    tasks = []
    for i in range(round(since * 10), round(until * 10)):
        time = i / 10
        if video:
            intake.add_frame(PICTURE.copy(), time, time)
            tasks += drain(intake)
        if audio:
            intake.add_sound(CHUNK, 8000, time, time + 0.1)
            tasks += drain(intake)
    return tasks


def windows(tasks: list[Task]) -> list[float]:
    return [round(t.window.time, 6) for t in tasks if t.window]


@pytest.mark.parametrize("kinds", ["both", "video", "audio"])
def test_a_window_every_hop(kinds: str) -> None:
    video, audio = kinds != "audio", kinds != "video"
    intake, statistics = make(video=video, audio=audio)
    tasks = play(intake, 0, 10, video=video, audio=audio)
    tasks += drain(intake, flush=True)
    assert windows(tasks) == [round(0.48 * i, 6) for i in range(1, 21)] + [10.08]
    filled = [t.window.filled for t in tasks if t.window]
    assert filled[:8] == pytest.approx([2 / 15 * i for i in range(1, 8)] + [1.0])
    assert statistics.resets == 0
    slots = [f.slot for t in tasks for f in t.frames]
    assert slots == ([None, *range(42)] if video else [])


def test_a_short_stream_still_has_its_say() -> None:
    intake, _ = make()
    intake.add_frame(PICTURE, 7.0, 0.0)
    assert windows(list(drain(intake))) == []
    tasks = list(drain(intake, flush=True))
    assert windows(tasks) == [7.24]
    assert list(drain(intake, flush=True)) == []


def test_nothing_has_nothing_to_say() -> None:
    assert list(drain(make()[0], flush=True)) == []


def test_a_window_waits_for_the_kind_behind_but_not_for_ever() -> None:
    intake, statistics = make(live=True)
    play(intake, 0, 2.3)
    # The camera is gone: its last frame, of 2.2 s, can't tell what is on screen at 2.28 s.
    ends, late = [], []
    for i in range(23, 62):
        intake.add_sound(CHUNK, 8000, i / 10, i / 10)
        for task in drain(intake):
            if task.window:
                ends.append(round(task.window.time, 2))
                late.append((i + 1) / 10 - task.window.time)
    # The sound completes 2.4 s, waits until the frames are 1 s behind, and by then 2.88 s too.
    assert pytest.approx(1.0) == PATIENCE
    assert ends == [2.88, 3.36, 3.84, 4.32, 4.8, 5.28, 5.76]
    assert statistics.skipped == 1
    assert 0.3 < late[0] < 0.5
    # From then on nothing is waited for but the chunk that completes the window.
    assert all(-1e-6 <= seconds < 0.1 for seconds in late[1:])


def test_sound_that_is_delivered_later_than_pictures_is_waited_for() -> None:
    intake, statistics = make(live=True)
    tasks = []
    for i in range(100):
        intake.add_frame(PICTURE, i / 10, i / 10)
        if i >= 7:
            intake.add_sound(CHUNK, 8000, (i - 7) / 10, i / 10)
        tasks += drain(intake)
    full = [t.window for t in tasks if t.window and t.window.filled == 1]
    assert len(full) == 12  # 3.84 to 9.12 s
    assert all(w.sound is not None and w.sound.samples[800:-800].all() for w in full)
    assert statistics.skipped == 0


def test_arrival_is_that_of_the_last_sample_or_frame() -> None:
    intake, _ = make(origin=0.0)
    tasks = []
    for i in range(20):
        intake.add_frame(PICTURE, i / 10, 100 + i / 10)
        intake.add_sound(CHUNK, 8000, i / 10, 200 + i / 10)
        tasks += [t.window for t in drain(intake) if t.window]
    # 0.48 s lies in the chunk of 0.4 to 0.5 s, 0.96 s in that of 0.9 s, and so on.
    assert [t.arrival for t in tasks] == [200.4, 200.9, 201.4, 201.9]


@pytest.mark.parametrize("jump", [-50.0, -1.5, 4.0, 1e6, -1e6])
@pytest.mark.parametrize("live", [False, True])
def test_a_clock_jump_empties_the_buffers(jump: float, live: bool) -> None:
    intake, statistics = make(live=live)
    play(intake, 100, 105)
    tasks = play(intake, 105 + jump, 110 + jump)
    assert statistics.resets == 1
    assert {t.epoch for t in tasks} == {1}
    first = next(t.window for t in tasks if t.window)
    assert first.filled == pytest.approx(2 / 15)
    assert first.time == pytest.approx(105 + jump + 0.48)


def test_a_pause_shorter_than_a_window_is_a_gap() -> None:
    intake, statistics = make()
    tasks = play(intake, 0, 4) + play(intake, 6, 10)
    assert (statistics.resets, statistics.gaps) == (0, 1)
    sound = next(t.window.sound for t in tasks if t.window and abs(t.window.time - 7.2) < 1e-6)
    assert sound is not None
    # 3.6 to 7.2 s, of which 4 to 6 s are missing, with 0.1 s before and after.
    heard = np.flatnonzero(sound.samples == 0) / 8000 + 3.5
    assert heard.min() == pytest.approx(4.0, abs=1e-3)
    assert heard[heard < 6.5].max() == pytest.approx(6.0, abs=1e-3)


def test_live_drops_the_oldest_frames_when_behind() -> None:
    intake, statistics = make(live=True)
    for i in range(100):
        intake.add_frame(PICTURE, i / 10, i / 10)
        intake.add_sound(CHUNK, 8000, i / 10, i / 10)
    tasks = list(drain(intake))
    frames = [f.slot for t in tasks for f in t.frames]
    assert len(frames) <= WAITING
    assert statistics.dropped == statistics.used - len(frames) > 20
    assert frames == sorted(frames, key=lambda slot: slot or -1)
    # Only the newest window is answered; it has the newest frames.
    assert windows(tasks) == [9.6]
    assert statistics.skipped == 19
    assert frames[-1] == 40


def test_an_hour_of_drifting_sound_stays_in_the_window() -> None:
    intake, statistics = make(live=True)
    errors = []
    for i in range(36_000):
        now = i / 10
        intake.add_frame(PICTURE, now, now)
        # The sound card's clock is slow by 0.1 %: after an hour its stamps are 3.6 s behind.
        intake.add_sound(CHUNK, 8000, now * 0.999, now + 0.1)
        for task in drain(intake):
            if task.window:
                assert task.window.sound is not None
                held = task.window.sound.samples[800:-800]
                errors.append(np.count_nonzero(held == 0) / 8000)
                assert task.window.time - now <= 0.5
    assert statistics.resets == 0
    assert len(errors) == 7499
    # Steps of 0.1 s, and the chunks' overlap: a window never lacks more than a few of them.
    assert max(errors[8:]) < 0.3


wild = st.lists(
    st.tuples(
        st.sampled_from(["frame", "sound", "sound", "take"]),
        st.one_of(
            st.floats(0.0, 0.3),
            st.floats(-1.2, 1.2),
            st.sampled_from([-100.0, 3.5, 3.7, 50.0]),
        ),
        st.integers(1, 2000),
        st.sampled_from([8000, 8000, 8000, 11_025]),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(wild, st.booleans(), st.integers(1, 15))
def test_no_source_breaks_the_invariants(
    steps: list[tuple[str, float, int, int]], live: bool, hop: int
) -> None:
    intake, statistics = make(hop, live=live)
    now = {"frame": 10.0, "sound": 10.0}
    tasks: list[Task] = []
    pushed = 0
    for i, (kind, step, count, rate) in enumerate(steps):
        if kind == "take":
            tasks += drain(intake)
        elif kind == "frame":
            now[kind] += step
            pushed += 1
            intake.add_frame(np.full((1, 1, 3), i, np.uint8), now[kind], float(i))
        else:
            now[kind] += step
            intake.add_sound(np.full(count, 0.5, np.float32), rate, now[kind], float(i))
            now[kind] += count / rate
        if not live:
            tasks += drain(intake)
        # Never grows: a window twice, a hop and a second, of floats.
        assert intake.ring.nbytes <= 4 * 11_025 * (2 * 3.6 + hop * SLOT + 1.0) + 4
        assert len(intake._pending) <= (max(WAITING, 2 * hop) if live else FRAMES + 2 * hop + 20)
    tasks += drain(intake, flush=True)

    assert statistics.frames == pushed
    assert [t.epoch for t in tasks] == sorted(t.epoch for t in tasks)
    for epoch in {t.epoch for t in tasks}:
        part = [t for t in tasks if t.epoch == epoch]
        slots = [f.slot for t in part for f in t.frames if f.slot is not None]
        assert slots == sorted(set(slots))  # each slot once, in order
        assert sum(f.slot is None for t in part for f in t.frames) <= 1
        ends = [t.window.slot for t in part if t.window]
        assert ends == sorted(set(ends))
        assert all(end % hop == 0 for end in ends[:-1])  # the last may be the stream's end
        done = -1
        for task in part:
            # A window comes after all frames of its slots, and before those of later ones.
            for frame in task.frames:
                assert frame.slot is None or task.window is None or frame.slot < task.window.slot
            if task.window:
                assert task.window.slot > done
                assert 0 < task.window.filled <= 1
                assert task.window.arrival < len(steps)
                done = task.window.slot
            else:
                assert all(f.slot is None or f.slot >= done for f in task.frames)
