"""What a device sees and hears that a corpus doesn't: corruptions before all preprocessing.

Each corruption changes decoded frames, a waveform, or how faces are found; detection, crops, MFCCs
and the model then go the device's way. All draws come from a generator that is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mer.data.corruptions import (
    TELEPHONE_RATE,
    Frames,
    Waveform,
    add_noise,
    blur,
    change_brightness,
    change_gain,
    compress_jpeg,
    limit_rate,
    make_pink_noise,
    pass_telephone,
)
from mer_runtime.inputs.face import Box, FaceDetector, HaarDetector
from mer_runtime.inputs.media import ClipWindow
from mer_runtime.spec import Detector


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a clip; what is None is left as it is.

    Attributes:
        name: of a row in the table, the strength in it.
        what: a line that says what is done, with units.
        frames: (n, H, W, 3) uint8 RGB frames to as many of the same size.
        waveform: (samples,) float32 in [-1, 1], its sample rate in Hz, to one of the same length.
        detector: the face detector to another.
        bitrate: bit/s that the clip's video is encoded with again, before it is decoded
            (``transcoding.py``).
    """

    name: str
    what: str
    frames: Callable[[Frames], Frames] | None = None
    waveform: Callable[[Waveform, int, np.random.Generator], Waveform] | None = None
    detector: Callable[[FaceDetector, np.random.Generator], FaceDetector] | None = None
    bitrate: int | None = None

    @property
    def modality(self) -> Literal["face", "voice"]:
        """Which of a clip's modalities it touches."""
        return "voice" if self.waveform else "face"

    def apply(self, window: ClipWindow, rate: int, generator: np.random.Generator) -> ClipWindow:
        """The window with its frames and its waveform (at ``rate`` Hz) changed."""
        frames, waveform = window.frames, window.waveform
        if self.frames and frames is not None:
            frames = self.frames(frames)
        if self.waveform and waveform is not None:
            waveform = self.waveform(waveform, rate, generator)
        return dataclasses.replace(window, frames=frames, waveform=waveform)


def list_corruptions(talkers: NDArray[np.float32]) -> list[Corruption]:
    """All rows of the table.

    Args:
        talkers: (n, samples) float32, voices that together are the babble, at the sample rate
            and of the length of the waveforms to come; any level.
    """
    babble = np.asarray(talkers.sum(axis=0), np.float32)
    return [
        *(_brightness(factor) for factor in (0.25, 0.5, 1.5, 2.5)),
        *(_blur(sigma) for sigma in (2, 4)),
        *(_jpeg(quality) for quality in (30, 10)),
        *(_h264(kilobits) for kilobits in (40, 15)),
        *(_jitter(percent) for percent in (5, 10, 20)),
        Corruption(
            "Haar crops",
            "OpenCV's Haar cascade finds the faces",
            detector=lambda detector, draw: HaarDetector(),
        ),
        *(_pink_noise(snr) for snr in (20, 10, 0)),
        *(_babble(snr, babble) for snr in (20, 10)),
        *(_gain(decibels) for decibels in (-40, 30)),
        Corruption(
            "8 kHz",
            "resampled to 8 kHz and back",
            waveform=lambda wave, rate, draw: limit_rate(wave, rate, TELEPHONE_RATE),
        ),
        Corruption(
            "telephone",
            "300 to 3 400 Hz, 8 kHz, µ-law",
            waveform=lambda wave, rate, draw: pass_telephone(wave, rate),
        ),
    ]


def _brightness(factor: float) -> Corruption:
    return Corruption(
        f"brightness {factor:g}",
        f"every pixel times {factor:g}, at most 255",
        frames=lambda frames: change_brightness(frames, factor),
    )


def _blur(sigma: float) -> Corruption:
    return Corruption(
        f"blur {sigma:g}",
        f"Gaussian blur, standard deviation {sigma:g} pixels of the frame",
        frames=lambda frames: blur(frames, sigma),
    )


def _jpeg(quality: int) -> Corruption:
    return Corruption(
        f"JPEG {quality}",
        f"each frame through JPEG of quality {quality} (of 100)",
        frames=lambda frames: compress_jpeg(frames, quality),
    )


def _h264(kilobits: int) -> Corruption:
    return Corruption(
        f"H.264 {kilobits} kbit/s",
        f"the video encoded again by x264 at {kilobits} kbit/s",
        bitrate=1000 * kilobits,
    )


def _jitter(percent: int) -> Corruption:
    return Corruption(
        f"box ± {percent} %",
        f"each frame's face box moved and resized by up to {percent} % of its side",
        detector=lambda detector, draw: JitteringDetector(detector, percent / 100, draw),
    )


def _pink_noise(snr: int) -> Corruption:
    return Corruption(
        f"pink noise {snr} dB",
        f"noise of power 1/f, {snr} dB under the clip's mean power",
        waveform=lambda wave, rate, draw: add_noise(wave, make_pink_noise(len(wave), draw), snr),
    )


def _babble(snr: int, babble: Waveform) -> Corruption:
    return Corruption(
        f"babble {snr} dB",
        f"other people talking, {snr} dB under the clip's mean power",
        waveform=lambda wave, rate, draw: add_noise(
            wave, np.roll(babble, int(draw.integers(len(babble)))), snr
        ),
    )


def _gain(decibels: int) -> Corruption:
    return Corruption(
        f"gain {decibels:+d} dB",
        f"{decibels:+d} dB, then 16 bits, clipped at full scale",
        waveform=lambda wave, rate, draw: change_gain(wave, decibels),
    )


class JitteringDetector:
    """A detector whose boxes move and change their size from frame to frame.

    The centre moves by up to ``share`` of the box's longer side along each axis, and both sides
    grow or shrink by one factor from ``1 - share`` to ``1 + share``, all uniform.
    """

    def __init__(
        self, detector: FaceDetector, share: float, generator: np.random.Generator
    ) -> None:
        self.detector, self.share, self.generator = detector, share, generator

    @property
    def name(self) -> Detector:
        return self.detector.name

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        """The largest face of an RGB frame (H, W, 3), jittered, or None."""
        return next(iter(self.detect_all(frame)), None)

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        """All faces, jittered, in the detector's own order."""
        return [self._jitter(box) for box in self.detector.detect_all(frame)]

    def _jitter(self, box: Box) -> Box:
        right, down, grow = self.generator.uniform(-self.share, self.share, 3)
        side = max(box.width, box.height)
        width, height = box.width * (1 + grow), box.height * (1 + grow)
        return Box(
            x=box.x + box.width / 2 + right * side - width / 2,
            y=box.y + box.height / 2 + down * side - height / 2,
            width=width,
            height=height,
        )
