"""Frames chosen before decoding are those picked while decoding."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_runtime.inputs.picks import FramePicks

#: Milliseconds, as Matroska keeps time.
BASE = Fraction(1, 1000)


def make_frame(stamp: int, shade: int = 0, size: tuple[int, int] = (8, 6)) -> Any:
    """A frame of one shade, shown from ``stamp`` milliseconds on."""
    width, height = size
    pixels = np.full((height, width, 3), shade, np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame.pts, frame.time_base = stamp, BASE
    return frame


def offer_all(picks: FramePicks, stamps: list[int]) -> NDArray[np.uint8] | None:
    for number, stamp in enumerate(stamps):
        picks.offer(make_frame(stamp, number), stamp * float(BASE))
    return picks.finish()


def choose(picks: FramePicks, stamps: list[int]) -> list[int]:
    return picks.choose([(stamp * float(BASE), stamp) for stamp in stamps])


STAMPS = st.lists(st.integers(-2000, 6000), min_size=1, max_size=60, unique=True).map(sorted)


@settings(max_examples=150, deadline=None)
@given(
    stamps=STAMPS,
    start=st.integers(-3000, 5000),
    count=st.integers(1, 16),
    order=st.randoms(use_true_random=False),
)
def test_chosen_are_picked(stamps: list[int], start: int, count: int, order: Any) -> None:
    """Whatever the frame rate, and in whatever order the packets come."""
    slot = 0.24
    picks = FramePicks(start * float(BASE), slot, count)
    decoding = list(stamps)
    order.shuffle(decoding)
    chosen = choose(picks, decoding)
    offer_all(picks, stamps)
    assert len(chosen) == count
    assert picks.picked(chosen)
    # By the definition, in whole milliseconds: 0.1 ms of slack is less than one.
    for i, stamp in enumerate(chosen):
        middle = start + (i + 0.5) * 1000 * slot + 0.1
        last = max((s for s in stamps if s <= middle), default=stamps[0])
        stale = middle - last > 500 * count * slot + 0.15  # half a window, and twice 0.1 ms
        late = stamps[0] >= start + 1000 * count * slot
        assert stamp == (None if stale or late else last)


def test_only_the_chosen_are_needed() -> None:
    stamps = list(range(0, 1000, 33))
    whole, part = (FramePicks(0.1, 0.2, 4) for _ in range(2))
    chosen = choose(whole, stamps)
    pictures = offer_all(whole, stamps)
    for stamp in sorted({*chosen, 0, 999}):
        part.offer(make_frame(stamp, stamps.index(stamp) if stamp < 999 else 0), stamp / 1000)
    assert part.picked(chosen)
    assert pictures is not None
    np.testing.assert_array_equal(part.finish(), pictures)
    assert not part.picked(stamps[:4])


def test_watcher_sees_each_picture_in_turn() -> None:
    seen: list[tuple[int, NDArray[np.uint8]]] = []
    picks = FramePicks(0.0, 0.1, 5, lambda place, picture: seen.append((place, picture.copy())))
    # 10 frames a second but for a gap: the third picture is shown twice.
    stamps = [0, 100, 200, 400]
    for number, stamp in enumerate(stamps):
        before = len(seen)
        picks.offer(make_frame(stamp, 10 * number), stamp / 1000)
        assert len(seen) in (before, before + 1, before + 2)  # as soon as it is sure
    assert [place for place, _ in seen] == [0, 1, 2, 3]
    pictures = picks.finish()
    assert pictures is not None
    assert [place for place, _ in seen] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.stack([picture for _, picture in seen]), pictures)
    assert pictures[:, 0, 0, 0].tolist() == [0, 10, 20, 20, 30]


def test_all_take_the_first_ones_size() -> None:
    picks = FramePicks(0.0, 0.1, 2)
    picks.offer(make_frame(0, 50), 0.0)
    picks.offer(make_frame(100, 200, size=(16, 12)), 0.1)
    pictures = picks.finish()
    assert pictures is not None
    assert pictures.shape == (2, 6, 8, 3)
    assert pictures[:, 3, 4, 0].tolist() == [50, 200]


def test_no_frame() -> None:
    picks = FramePicks(0.0, 0.1, 2)
    assert picks.empty
    assert picks.finish() is None
