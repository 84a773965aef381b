"""Which frame a slot uses, against the rule spelled out and against clip mode."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_runtime.inputs.picks import CLOCK_SLACK, FramePicks
from mer_runtime.stream.frame_slots import FrameSlots
from mer_runtime.stream.statistics import StreamStatistics

SLOT = 0.24
STALE = 1.8


def picture(number: int) -> NDArray[np.uint8]:
    return np.full((1, 1, 3), number % 256, np.uint8)


times = st.lists(st.integers(0, 8000).map(lambda ms: ms / 1000), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(times, st.integers(1, 40))
def test_slots_show_what_is_on_screen(times: list[float], end: int) -> None:
    statistics = StreamStatistics()
    slots = FrameSlots(0.0, SLOT, STALE, statistics)
    images = [picture(i) for i in range(len(times))]
    decided = [p for t, i in zip(times, images, strict=True) for p in slots.offer(i, t)]
    decided += slots.decide_until(end)
    assert decided[0].slot is None
    assert decided[0].image is images[0]
    picks = {p.slot: p.image for p in decided[1:]}
    assert len(picks) == len(decided) - 1  # no slot twice
    assert list(picks) == sorted(picks, key=lambda slot: slot or 0)

    # A frame older than one before it is never on screen.
    newest = np.maximum.accumulate(times)
    shown = [k for k, t in enumerate(times) if t == newest[k]]
    assert statistics.late == len(times) - len(shown)
    for slot in range(slots.next):
        middle = (slot + 0.5) * SLOT
        on = [k for k in shown if times[k] <= middle + CLOCK_SLACK] or shown[:1]
        if middle - times[on[-1]] <= STALE + CLOCK_SLACK:
            assert picks[slot] is images[on[-1]]
        else:
            assert slot not in picks


@settings(max_examples=100, deadline=None)
@given(times.map(sorted))
def test_slots_are_those_of_clip_mode(times: list[float]) -> None:
    count = 15
    expected = FramePicks(0.0, SLOT, count).choose([(t, i) for i, t in enumerate(times)])
    slots = FrameSlots(0.0, SLOT, STALE, StreamStatistics())
    images = [picture(i) for i in range(len(times))]
    decided = [p for t, i in zip(times, images, strict=True) for p in slots.offer(i, t)]
    decided += slots.decide_until(count)
    picked = {p.slot: p.image for p in decided if p.slot is not None and p.slot < count}
    # Live, a first frame after the window can't have come when that is answered.
    wanted = {slot: images[i] for slot, i in enumerate(expected) if i is not None}
    if times[0] < count * SLOT:
        assert picked.keys() == wanted.keys()
        assert all(picked[slot] is image for slot, image in wanted.items())
    else:
        assert not wanted
