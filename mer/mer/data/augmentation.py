"""What training changes about a clip: which modality it sees, how it looks, how it sounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mer.data.spoiling import CROP_KINDS
from mer.protocols import (
    EachAlone,
    FaceAugmentation,
    Protocol,
    SoftHard,
    VoiceAugmentation,
)
from mer_runtime.feeds import Modality


@dataclass(frozen=True)
class FaceView:
    """How all crops of a clip are shown."""

    flip: bool = False
    angle: int = 0  # degrees, anticlockwise
    light: float = 1.0  # factor on the raw pixels; 0: the face is missing
    fault: str = ""  # one of mer.data.spoiling.CROP_KINDS, before all else; none where empty


@dataclass(frozen=True)
class Example:
    """A row of the cache as one training step sees it."""

    row: int
    voice: float = 1.0  # factor on the raw MFCCs; 0: the voice is missing
    face: FaceView = FaceView()


def plain_example(row: int, modality: Modality = "both") -> Example:
    """A row as it is, or with one modality alone."""
    return Example(
        row, voice=float(modality != "video"), face=FaceView(light=float(modality != "audio"))
    )


def draw_examples(
    rows: Sequence[int], protocol: Protocol, generator: np.random.Generator
) -> list[Example]:
    """The examples that ``protocol`` makes of a batch of rows: as many, or three or four times."""
    plain = [Example(row, face=_draw_view(protocol.face, generator)) for row in rows]
    if isinstance(protocol.missing, SoftHard):
        share = generator.integers(0, 100, len(plain)) / 100
        faded = [_fade(e, float(c), float(1 - c)) for e, c in zip(plain, share, strict=True)]
        return _shuffle_in_alone([*plain, *faded], plain, generator)
    if isinstance(protocol.missing, EachAlone):
        return _shuffle_in_alone(plain, plain, generator)
    draws = generator.random(len(plain))
    voice, face = protocol.missing.voice, protocol.missing.face
    return [
        _fade(e, 0.0, 1.0) if u < voice else _fade(e, 1.0, 0.0) if u < voice + face else e
        for e, u in zip(plain, draws, strict=True)
    ]


def change_crops(crops: Tensor, view: FaceView) -> Tensor:
    """Crops (N, S, S, 3) of any number type, 0 to 255, to float32 ones as ``view`` shows them.

    Rotation is about the centre with bilinear interpolation; what comes into the picture from
    outside is black.
    """
    crops = crops.float()
    if view.flip:
        crops = crops.flip(2)
    if view.angle:
        turn = math.radians(view.angle)
        # affine_grid maps output to input positions, with y pointing down.
        matrix = torch.tensor(
            [[math.cos(turn), -math.sin(turn), 0.0], [math.sin(turn), math.cos(turn), 0.0]],
            device=crops.device,
        )
        pictures = crops.movedim(-1, 1)
        grid = functional.affine_grid(
            matrix.expand(len(crops), 2, 3), list(pictures.shape), align_corners=False
        )
        crops = functional.grid_sample(pictures, grid, align_corners=False).movedim(1, -1)
    return crops * view.light


def change_waveform(
    waveform: NDArray[np.float32],
    sample_rate: int,
    augmentation: VoiceAugmentation,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """A waveform (samples,) played at another speed, moved, with noise; same length and scale."""
    n = len(waveform)
    speed = 1 + generator.uniform(-augmentation.speed, augmentation.speed)
    shift = generator.uniform(-augmentation.shift, augmentation.shift) * sample_rate
    ticks = np.arange(n)
    positions = (ticks - n / 2) * speed + n / 2 - shift
    changed = np.interp(positions, ticks, waveform, left=0.0, right=0.0)
    if generator.random() < augmentation.noise:
        snr = generator.uniform(*augmentation.snr)
        level = math.sqrt(float(np.mean(changed**2)) / 10 ** (snr / 10))
        changed = changed + level * generator.standard_normal(n, np.float32)
    return np.asarray(changed, np.float32)


def mask_mfcc(
    mfcc: NDArray[np.float32],
    fill: NDArray[np.float32],
    augmentation: VoiceAugmentation,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Blank a run of frames and a run of coefficients (SpecAugment, Park et al. 2019).

    ``mfcc`` is (n_mfcc, T); ``fill`` (n_mfcc, 1) is what blanks: each coefficient's mean.
    """
    masked = mfcc.copy()
    for axis, widest in ((1, augmentation.mask_frames), (0, augmentation.mask_coefficients)):
        width = int(generator.integers(0, min(widest, mfcc.shape[axis]) + 1))
        start = int(generator.integers(0, mfcc.shape[axis] - width + 1))
        if axis == 1:
            masked[:, start : start + width] = fill
        else:
            masked[start : start + width] = fill[start : start + width]
    return masked


def drop_channels(features: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Zero channels of frame features (B, 15, C), the same in all frames of a clip.

    The rest is scaled up so that the expected value stays.
    """
    if probability == 0:
        return features
    shape = (features.shape[0], 1, features.shape[2])
    kept = torch.rand(shape, generator=generator) >= probability
    return features * kept.to(features.device) / (1 - probability)


def _draw_view(augmentation: FaceAugmentation, generator: np.random.Generator) -> FaceView:
    view = FaceView(
        flip=bool(generator.random() < augmentation.flip),
        angle=int(generator.integers(-augmentation.max_angle, augmentation.max_angle + 1)),
    )
    if augmentation.spoilt and generator.random() < augmentation.spoilt:
        return dataclasses.replace(view, fault=CROP_KINDS[generator.integers(len(CROP_KINDS))])
    return view


def _shuffle_in_alone(
    examples: Sequence[Example], plain: Sequence[Example], generator: np.random.Generator
) -> list[Example]:
    """``examples``, and each of ``plain`` without its voice and without its face, shuffled."""
    alone = [_fade(e, voice, 1 - voice) for voice in (0.0, 1.0) for e in plain]
    every = [*examples, *alone]
    return [every[i] for i in generator.permutation(len(every))]


def _fade(example: Example, voice: float, light: float) -> Example:
    return dataclasses.replace(
        example, voice=voice, face=dataclasses.replace(example.face, light=light)
    )
