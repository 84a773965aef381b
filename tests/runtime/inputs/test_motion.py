"""Pictures that move on, and frozen ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.motion import moves_on, sketch


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_a_picture_that_shifts_moves_on(portrait: NDArray[np.uint8], scale: float) -> None:
    picture = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    sketches = [sketch(np.roll(picture, round(3 * scale + i), axis=1)) for i in range(3)]
    assert all(one.shape == (36, 64) for one in sketches)
    assert moves_on(sketches)
    assert not moves_on([sketches[0]] * 3)
    assert moves_on(sketches[:1])  # nothing to compare with


def test_noise_of_a_codec_is_no_motion(portrait: NDArray[np.uint8]) -> None:
    draw = np.random.default_rng(2)
    noisy = [
        np.clip(portrait + draw.integers(-4, 5, portrait.shape), 0, 255).astype(np.uint8)
        for _ in range(4)
    ]
    assert not moves_on([sketch(one) for one in noisy])


def test_a_mouth_is_enough(portrait: NDArray[np.uint8]) -> None:
    later = portrait.copy()
    later[130:140, 205:235] //= 2
    assert moves_on([sketch(portrait), sketch(later)])
