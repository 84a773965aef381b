"""Squares around boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.crops import crop_face, find_nearest
from mer_runtime.inputs.face import Box
from mer_runtime.spec import VideoSpec

Picture = NDArray[np.uint8]


def test_equally_near_places_give_the_earlier() -> None:
    assert find_nearest([True, False, True]) == [0, 0, 2]
    assert find_nearest([False, False]) is None


def test_bgr_is_rgb_backwards(portrait: Picture) -> None:
    box = Box(170, 60, 110, 130)
    rgb = crop_face(portrait, box, VideoSpec(colour="rgb"))
    bgr = crop_face(portrait, box, VideoSpec(colour="bgr"))
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])
    red, _, blue = rgb.reshape(-1, 3).mean(axis=0)
    assert red > blue + 10  # skin


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("size", [96, 224])
def test_square_side_and_margin(portrait: Picture, margin: float, size: int) -> None:
    box = Box(180, 60, 100, 140)
    crop = crop_face(portrait, box, VideoSpec(margin=margin, size=size))
    side = round(140 * (1 + margin))
    left, top = round(230 - side / 2), round(130 - side / 2)
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    wanted = cv2.resize(
        portrait[max(top, 0) : top + side, left : left + side], (size, size), interpolation=method
    )
    assert top >= 0  # this test stays inside the picture
    np.testing.assert_array_equal(crop, wanted)


@pytest.mark.parametrize(
    "box",
    [
        Box(-40, 50, 100, 100),
        Box(470, 50, 100, 100),
        Box(100, -60, 100, 100),
        Box(100, 480, 100, 100),
        Box(-50, -50, 700, 700),
        Box(460.5, 470.25, 90.5, 33.0),
    ],
)
def test_beyond_the_edge_it_is_repeated(portrait: Picture, box: Box) -> None:
    border = 400
    padded = cv2.copyMakeBorder(portrait, *[border] * 4, cv2.BORDER_REPLICATE)
    moved = Box(box.x + border, box.y + border, box.width, box.height)
    np.testing.assert_array_equal(
        crop_face(portrait, box, VideoSpec()), crop_face(padded, moved, VideoSpec())
    )


@pytest.mark.parametrize("box", [Box(0, 0, 0, 0), Box(-900, -900, 50, 50), Box(3, 3, 0.2, 0.1)])
def test_degenerate_box_still_gives_a_crop(portrait: Picture, box: Box) -> None:
    assert crop_face(portrait, box, VideoSpec()).shape == (224, 224, 3)
