"""What a model is shown of a clip: each modality as it is, missing, or replaced by noise."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MissingModalityError
from mer_runtime.feeds import Modality, name_modality
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.spec import AudioSpec, VideoSpec

Presence = Literal["present", "missing", "noise"]
PRESENCES: tuple[Presence, ...] = get_args(Presence)

#: Seeds all noise; each clip's own follows from this and its name.
NOISE_SEED = 2026
#: Standard deviation of white noise in a waveform whose full scale is 1.
NOISE_LEVEL = 0.1


@dataclass(frozen=True)
class Feed:
    """How both modalities are shown. Missing is raw zeros: black crops, zero MFCCs."""

    face: Presence = "present"
    voice: Presence = "present"

    @property
    def modality(self) -> Modality:
        """The modality that isn't missing, or both."""
        return name_modality(face=self.face != "missing", voice=self.voice != "missing")


def choose_feed(
    modality: Modality = "both", face: Presence | None = None, voice: Presence | None = None
) -> Feed:
    """``modality`` in terms of ``face`` and ``voice``, which go before it where they are given.

    ``audio`` is a missing face, ``video`` a missing voice.

    Raises:
        MissingModalityError: nothing is left to answer from.
    """
    feed = Feed(
        face=face or ("missing" if modality == "audio" else "present"),
        voice=voice or ("missing" if modality == "video" else "present"),
    )
    if feed.face == feed.voice == "missing":
        raise MissingModalityError("face and voice are both missing: show at least one of them")
    return feed


def make_noise_crops(video: VideoSpec, clip: str) -> NDArray[np.uint8]:
    """(frames, S, S, 3) uint8: every value of every crop uniform, 0 to 255. ``clip`` seeds."""
    return _generator(clip).integers(0, 256, video.shape, np.uint8)


def make_noise_mfcc(audio: AudioSpec, clip: str) -> NDArray[np.float32]:
    """(n_mfcc, T) float32: the MFCCs of white Gaussian noise. ``clip`` seeds."""
    noise = NOISE_LEVEL * _generator(clip).standard_normal(audio.samples, np.float32)
    return compute_mfcc(noise, audio)


def _generator(clip: str) -> np.random.Generator:
    return np.random.default_rng((NOISE_SEED, zlib.crc32(clip.encode())))
