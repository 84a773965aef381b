"""Faces from frame to frame."""

from __future__ import annotations

import pytest

from mer_runtime.inputs.face import Box
from mer_runtime.stream.tracking import MOST, FaceTracker, match, measure_closeness, scale_box

SIZE = (480, 640)


def box(x: float, y: float = 100.0, side: float = 60.0) -> Box:
    return Box(x, y, side, side)


def test_one_begins_with_the_largest() -> None:
    large, small = box(300, side=90), box(100)
    assert FaceTracker("one", 15).update([large, small], SIZE, 0) == {1: large}


def test_one_stays_with_its_face_when_a_larger_one_comes() -> None:
    tracker = FaceTracker("one", 15)
    tracker.update([box(100)], SIZE, 0)
    assert tracker.update([box(400, side=200), box(110)], SIZE, 1) == {1: box(110)}
    assert tracker.update([box(400, side=200), box(125)], SIZE, 2) == {1: box(125)}


def test_one_takes_the_nearest_of_two_alike() -> None:
    tracker = FaceTracker("one", 15)
    tracker.update([box(100)], SIZE, 0)
    assert tracker.update([box(140), box(95)], SIZE, 1) == {1: box(95)}


def test_one_goes_over_to_another_face_under_a_new_number() -> None:
    tracker = FaceTracker("one", 15)
    tracker.update([box(100)], SIZE, 0)
    assert tracker.update([], SIZE, 1) == {}
    assert tracker.update([box(500)], SIZE, 2) == {2: box(500)}
    # The first one's place is forgotten.
    assert tracker.update([box(500), box(100)], SIZE, 3) == {2: box(500)}


def test_one_remembers_for_a_window() -> None:
    tracker = FaceTracker("one", 15)
    tracker.update([box(100)], SIZE, 0)
    assert tracker.update([box(100)], SIZE, 14) == {1: box(100)}
    assert tracker.update([box(100)], SIZE, 29) == {2: box(100)}


def test_all_follows_each_through_crossing_detections() -> None:
    tracker = FaceTracker("all", 15)
    first = tracker.update([box(100), box(300)], SIZE, 0)
    assert first == {1: box(100), 2: box(300)}
    # Listed the other way round, moved, and one more.
    assert tracker.update([box(290), box(115), box(500)], SIZE, 1) == {
        1: box(115),
        2: box(290),
        3: box(500),
    }
    assert tracker.update([box(115)], SIZE, 2) == {1: box(115)}
    # Number 2 was away for a while, and is known again.
    assert tracker.update([box(285), box(120)], SIZE, 10) == {1: box(120), 2: box(285)}


def test_all_ages_out_and_never_uses_a_number_again() -> None:
    tracker = FaceTracker("all", 5)
    tracker.update([box(100)], SIZE, 0)
    tracker.update([], SIZE, 3)
    assert tracker.update([box(100)], SIZE, 5) == {2: box(100)}


def test_all_follows_only_the_largest() -> None:
    crowd = [box(60.0 * i, side=59 - i) for i in range(10)]
    assert len(FaceTracker("all", 15).update(crowd, SIZE, 0)) == MOST


def test_new_frame_size_keeps_the_track() -> None:
    tracker = FaceTracker("one", 15)
    tracker.update([box(400, 300)], (480, 640), 0)
    half = Box(200, 150, 30, 30)
    assert tracker.update([box(10, 10, 40), half], (240, 320), 1) == {1: half}


def test_closest_pair_is_matched_first() -> None:
    # Greedy by order would give box 110 to track 1, and nothing to track 2.
    assert match({1: box(80), 2: box(112)}, [box(110), box(70)]) == {1: box(70), 2: box(110)}


@pytest.mark.parametrize("other", [box(161), box(100, 161), box(70, 70, 121), box(115, 115, 29)])
def test_far_or_other_sized_is_not_the_same_face(other: Box) -> None:
    assert measure_closeness(box(100), other) is None


def test_closeness_by_hand() -> None:
    # Moved by a quarter of a side: they share 3/4 of each, 3/5 of their union.
    assert measure_closeness(box(100), box(115)) == pytest.approx(0.6 - 0.25)


def test_scale_box() -> None:
    assert scale_box(Box(10, 20, 30, 40), (100, 200), (50, 400)) == Box(20, 10, 60, 20)
