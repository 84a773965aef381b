"""Test signals: a voice and a picture by formula, whose MFCCs and crop every device must agree on.

A bundle carries what they gave where it was exported. A device that prepares them otherwise, by
another sample rate, colour order or way to resize, is found out before it answers wrongly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.crops import crop_face
from mer_runtime.inputs.face import Box
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.spec import AudioSpec, VideoSpec

#: The voice's pitch at either end, Hz, and how often a second it swells.
PITCH, SWELLS = (110.0, 330.0), 3.0
#: Its harmonics; each is weaker than the one before by this factor.
HARMONICS, DECAY = 12, 0.75
#: The picture's height and width, and the wavelengths of its colours' waves, in pixels.
PICTURE, WAVES = (360, 480), (23.0, 31.0, 41.0)
#: Where its "face" is. Crops of 224 pixels are enlarged from it.
FACE = Box(147.0, 101.0, 181.0, 173.0)


def signal_mfcc(spec: AudioSpec) -> NDArray[np.float32]:
    """MFCCs ``spec.shape`` of a gliding, swelling tone with harmonics."""
    times = np.arange(spec.samples) / spec.sample_rate
    low, high = PITCH
    phase = 2 * np.pi * (low * times + (high - low) / (2 * spec.window) * times**2)
    tones = [DECAY**k * np.sin(k * phase) for k in range(1, HARMONICS + 1)]
    swell = np.sin(np.pi * SWELLS * times) ** 2
    return compute_mfcc((0.2 * swell * np.sum(tones, axis=0)).astype(np.float32), spec)


def signal_crop(spec: VideoSpec) -> NDArray[np.uint8]:
    """The crop (S, S, 3) of a picture of waves, another in each colour."""
    rows, columns = np.mgrid[: PICTURE[0], : PICTURE[1]]
    waves = [
        128 + 40 * number * np.sin(2 * np.pi * (rows + number * columns) / length)
        for number, length in enumerate(WAVES, start=1)
    ]
    picture = np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8)
    return crop_face(picture, FACE, spec)
