"""What training spoils about a clip, drawn at random: sounds and crops as bad devices give them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from mer.data.corruptions import (
    TELEPHONE_RATE,
    Waveform,
    add_echo,
    add_noise,
    blur,
    change_brightness,
    compress_jpeg,
    limit_rate,
    make_pink_noise,
    pass_telephone,
)

#: dB of the voice over the noise: from a voice that is drowned to one that is hardly touched.
SNR = (-5.0, 25.0)
#: Kinds of spoilt crops; a clip has each in one strength of its own.
CROP_KINDS = ("blurred", "lit", "compressed", "covered", "jittered")


class VoiceSpoiler:
    """Spoils waveforms: noise, babble, a narrow band, a telephone, clipping, echo.

    Args:
        talkers: (n, samples) float32, training actors' voices of any level; babble is the sum of
            some of them.
    """

    def __init__(self, talkers: NDArray[np.float32]) -> None:
        self.talkers = talkers

    def spoil(self, waveform: Waveform, rate: int, generator: np.random.Generator) -> Waveform:
        """One kind, or two one after the other; (samples,) float32 at ``rate`` Hz."""
        kinds: list[Callable[[Waveform, int, np.random.Generator], Waveform]] = [
            self._add_pink,
            self._add_white,
            self._add_babble,
            self._narrow,
            self._call,
            self._clip,
            self._echo,
        ]
        for kind in generator.choice(len(kinds), 1 + int(generator.random() < 0.3), replace=False):
            waveform = kinds[kind](waveform, rate, generator)
        return waveform

    def _add_pink(self, wave: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
        return add_noise(wave, make_pink_noise(len(wave), draw), float(draw.uniform(*SNR)))

    def _add_white(self, wave: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
        noise = draw.standard_normal(len(wave), np.float32)
        return add_noise(wave, noise, float(draw.uniform(*SNR)))

    def _add_babble(self, wave: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
        some = draw.choice(len(self.talkers), int(draw.integers(3, 9)))
        babble = np.asarray(self.talkers[some].sum(axis=0), np.float32)
        babble = np.roll(babble, int(draw.integers(len(babble))))
        return add_noise(wave, babble, float(draw.uniform(*SNR)))

    def _narrow(self, wave: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
        # Half of them at a telephone's rate, which is the commonest of all.
        lowered = TELEPHONE_RATE if draw.random() < 0.5 else int(draw.integers(6_000, 14_000))
        return limit_rate(wave, rate, min(lowered, rate))

    def _call(self, wave: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
        return pass_telephone(wave, rate)

    def _clip(self, wave: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
        limit = float(draw.uniform(0.05, 0.7)) * float(np.abs(wave).max())
        return np.asarray(np.clip(wave, -limit, limit), np.float32)

    def _echo(self, wave: Waveform, rate: int, draw: np.random.Generator) -> Waveform:
        decay, share = float(draw.uniform(0.15, 0.8)), float(draw.uniform(0.1, 1.5))
        return add_echo(wave, rate, decay, share, draw)


def spoil_crops(
    crops: NDArray[np.uint8], kind: str, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Crops (n, S, S, 3) uint8 with one kind of fault, the same in all of them but for jitter.

    Args:
        kind: one of ``CROP_KINDS``.
    """
    return _KINDS[kind](crops, generator)


def _blur(crops: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    return blur(crops, float(draw.uniform(0.01, 0.035)) * crops.shape[1])


def _light(crops: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    return change_brightness(crops, float(np.exp(draw.uniform(np.log(0.2), np.log(2.5)))))


def _compress(crops: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    return compress_jpeg(crops, int(draw.integers(5, 40)))


def _cover(crops: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    """A hand, a scarf or a cup: a rectangle of one colour over up to half of the face."""
    size = crops.shape[1]
    height, width = (int(size * draw.uniform(0.2, 0.7)) for _ in range(2))
    top, left = int(draw.integers(size - height + 1)), int(draw.integers(size - width + 1))
    covered = crops.copy()
    covered[:, top : top + height, left : left + width] = draw.integers(0, 256, 3, np.uint8)
    return covered


def _jitter(crops: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.uint8]:
    """The box moved and resized from crop to crop, by up to a fifth; edges are repeated."""
    size, share = crops.shape[1], float(draw.uniform(0.05, 0.2))
    moved = []
    for crop in crops:
        right, down, grow = draw.uniform(-share, share, 3)
        scale = 1 / (1 + grow)
        centre = size / 2
        matrix = np.array(
            [
                [scale, 0, centre - scale * (centre + right * size)],
                [0, scale, centre - scale * (centre + down * size)],
            ]
        )
        moved.append(cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(moved).astype(np.uint8)


_KINDS: dict[str, Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]] = dict(
    zip(CROP_KINDS, (_blur, _light, _compress, _cover, _jitter), strict=True)
)
