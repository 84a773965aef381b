"""Faces from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.face import Box
from mer_runtime.inputs.tracking import (
    ALIKE,
    MOST,
    Face,
    FaceTracker,
    choose_person,
    compare_looks,
    describe_look,
    list_people,
    match,
    measure_closeness,
    scale_box,
    shows,
)

SIZE = (480, 640)


def box(x: float, y: float = 100.0, side: float = 60.0) -> Box:
    return Box(x, y, side, side)


def face(x: float, y: float = 100.0, side: float = 60.0, look: int | None = None) -> Face:
    """A face that looks like number ``look``, or like any."""
    if look is None:
        return Face(box(x, y, side))
    vector = np.random.default_rng(look).normal(size=192).astype(np.float32)
    return Face(box(x, y, side), vector / np.linalg.norm(vector))


def update(tracker: FaceTracker, faces: Sequence[Face], slot: int) -> dict[int, Box]:
    return {n: found.box for n, found in tracker.update(faces, SIZE, slot).items()}


def test_follows_each_whatever_the_order() -> None:
    tracker = FaceTracker(15)
    assert update(tracker, [face(100), face(300)], 0) == {1: box(100), 2: box(300)}
    # Listed the other way round, moved, and one more.
    assert update(tracker, [face(290), face(115), face(500)], 1) == {
        1: box(115),
        2: box(290),
        3: box(500),
    }
    assert update(tracker, [face(115)], 2) == {1: box(115)}
    # Number 2 was away for a while, and is known again.
    assert update(tracker, [face(285), face(120)], 10) == {1: box(120), 2: box(285)}


def test_takes_the_nearest_of_two_alike() -> None:
    tracker = FaceTracker(15)
    update(tracker, [face(100)], 0)
    assert update(tracker, [face(140), face(95)], 1) == {1: box(95), 2: box(140)}


def test_ages_out_and_never_uses_a_number_again() -> None:
    tracker = FaceTracker(5)
    update(tracker, [face(100)], 0)
    update(tracker, [], 3)
    assert update(tracker, [face(100)], 4) == {1: box(100)}
    assert update(tracker, [face(100)], 9) == {2: box(100)}


def test_follows_only_the_largest() -> None:
    crowd = [face(60.0 * i, side=59 - i) for i in range(10)]
    assert len(update(FaceTracker(15), crowd, 0)) == MOST


def test_new_frame_size_keeps_the_track() -> None:
    tracker = FaceTracker(15)
    tracker.update([face(400, 300)], (480, 640), 0)
    half = Face(Box(200, 150, 30, 30))
    assert tracker.update([face(10, 10, 40), half], (240, 320), 1)[1] is half


def test_motion_goes_on_where_two_cross() -> None:
    """Both alike: only how they moved tells them apart."""
    tracker = FaceTracker(15)
    for slot in range(4):
        update(tracker, [face(100 + 40 * slot), face(340 - 40 * slot, 110)], slot)
    # They met at 220; from there each goes on.
    assert update(tracker, [face(180, 110), face(260)], 4) == {1: box(260), 2: box(180, 110)}


def test_another_look_is_another_person() -> None:
    tracker = FaceTracker(15)
    update(tracker, [face(100, look=1)], 0)
    assert update(tracker, [face(100, look=2)], 1) == {2: box(100)}
    assert update(tracker, [face(101, look=1)], 2) == {1: box(101)}


def test_the_same_look_may_go_far() -> None:
    last = face(100, look=1)
    assert measure_closeness(last, face(100 + 2 * 60, look=1)) is not None
    assert measure_closeness(last, face(100 + 3 * 60, look=1)) is None
    assert measure_closeness(last, face(100 + 2 * 60)) is None


def test_closest_pair_is_matched_first() -> None:
    # Greedy by order would give box 110 to track 1, and nothing to track 2.
    assert match({1: face(80), 2: face(112)}, [face(110), face(70)]) == {
        1: face(70),
        2: face(110),
    }


@pytest.mark.parametrize("other", [box(161), box(100, 161), box(70, 70, 121), box(115, 115, 29)])
def test_far_or_other_sized_is_not_the_same_face(other: Box) -> None:
    assert measure_closeness(face(100), Face(other)) is None


def test_closeness_by_hand() -> None:
    # Moved by a quarter of a side: they share 3/4 of each, 3/5 of their union.
    assert measure_closeness(face(100), face(115)) == pytest.approx(0.6 - 0.25)


def test_scale_box() -> None:
    assert scale_box(Box(10, 20, 30, 40), (100, 200), (50, 400)) == Box(20, 10, 60, 20)


# --- whom a window is about ---------------------------------------------------------------


def test_the_longest_then_the_largest() -> None:
    small, large = face(0, side=50), face(300, side=90)
    assert choose_person([{1: small, 2: large}, {1: small}]) == 1
    assert choose_person([{1: small, 2: large}, {2: large, 1: small}]) == 2
    assert choose_person([{}, {}]) is None
    assert choose_person([]) is None


def test_a_stream_stays_with_its_person() -> None:
    seen = [{1: face(0), 2: face(300)}] * 2 + [{2: face(300)}] * 2
    assert choose_person(seen) == 2
    assert choose_person(seen, before=1) == 1
    assert choose_person([*seen, {2: face(300)}], before=1) == 2  # 2 of 5
    assert choose_person(seen, before=7) == 2


def test_a_single_detection_is_nobody() -> None:
    assert list_people([{1: face(0)}, {1: face(0), 2: face(300)}]) == [1]


# --- looks --------------------------------------------------------------------------------


def test_looks(portrait: NDArray[np.uint8]) -> None:
    at = Box(175, 70, 100, 120)
    look = describe_look(portrait, at)
    assert look.shape == (192,)
    assert compare_looks(look, look) == pytest.approx(1)
    dim = (portrait * 0.4).astype(np.uint8)
    assert compare_looks(look, describe_look(dim, at)) > 0.99
    assert compare_looks(look, describe_look(portrait, Box(180, 76, 100, 115))) > ALIKE
    assert compare_looks(look, describe_look(portrait, Box(300, 300, 100, 120))) < ALIKE
    assert compare_looks(look, None) is None
    assert describe_look(np.full_like(portrait, 90), at) is None
    assert shows(dim, Face(at, look))
    assert shows(dim, Face(at))
    assert not shows(np.full_like(portrait, 90), Face(at, look))
