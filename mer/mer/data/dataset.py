"""Rows of a cache as the network's inputs."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mer.data.augmentation import Example, FaceView, change_crops, change_waveform, mask_mfcc
from mer.data.cache import Cache
from mer.data.index import INT16_SCALE
from mer.data.spoiling import VoiceSpoiler, spoil_crops
from mer.errors import CacheError, TrainingError
from mer.models import MultimodalNet, Standardiser
from mer.protocols import VoiceAugmentation
from mer_runtime.spec import AudioSpec, Spec

#: Voices kept for babble.
TALKERS = 64


class FaceSource(Protocol):
    """Where the frame features of faces come from: a live encoder, or what one left on disk."""

    def features(self, examples: Sequence[Example]) -> Tensor:
        """(B, 15, F) float32 on the training device."""
        ...


class LiveFaces:
    """Crops read from the cache and encoded by ``model``, in whatever mode that is."""

    def __init__(self, cache: Cache, spec: Spec, model: MultimodalNet, device: str) -> None:
        self.cache, self.spec, self.model, self.device = cache, spec, model, device
        self.standardiser = Standardiser(spec).to(device)

    def features(self, examples: Sequence[Example]) -> Tensor:
        crops = [change_crops(self._read(e.row, e.face), e.face) for e in examples]
        return self.model.encode(self.standardiser.video(torch.stack(crops)))

    def _read(self, row: int, view: FaceView) -> Tensor:
        if view.light == 0:  # black however it is turned
            return torch.zeros(self.spec.video.shape, dtype=torch.uint8, device=self.device)
        crops = read_crops(self.cache, row, self.spec)
        if view.fault:
            # Seeded by the clip and the kind, so that it is the same in every epoch.
            seeds = (zlib.crc32(text.encode()) for text in (self.cache.rows[row].id, view.fault))
            crops = spoil_crops(crops, view.fault, np.random.default_rng(tuple(seeds)))
        return torch.from_numpy(crops).to(self.device)


class Voices:
    """MFCCs of a cache's rows; those of unchanged waveforms are computed once and kept.

    Args:
        augmentation: changes the waveforms and MFCCs of every example, or None.
        talkers: rows whose voices make the babble, where ``augmentation`` spoils voices.
    """

    def __init__(
        self,
        cache: Cache,
        audio: AudioSpec,
        augmentation: VoiceAugmentation | None = None,
        talkers: Sequence[int] = (),
    ) -> None:
        self.cache, self.audio, self.augmentation = cache, audio, augmentation
        self._spoiler = VoiceSpoiler(read_talkers(cache, talkers)) if talkers else None
        self._fill = np.array(audio.mean or (0.0,) * audio.n_mfcc, np.float32)[:, None]
        self._kept: dict[int, NDArray[np.float32]] = {}

    def mfcc(self, examples: Sequence[Example], generator: np.random.Generator) -> Tensor:
        """Raw MFCCs (B, n_mfcc, T) float32, zeros where the voice is missing."""
        return torch.from_numpy(np.stack([self._one(e, generator) for e in examples]))

    def _one(self, example: Example, generator: np.random.Generator) -> NDArray[np.float32]:
        if example.voice == 0 or not self.cache.rows[example.row].has_voice:
            return np.zeros(self.audio.shape, np.float32)
        if self.augmentation is None:
            mfcc = self._read(example.row)
        else:
            waveform = self.cache.waveform(example.row).astype(np.float32) / np.float32(INT16_SCALE)
            rate = self.audio.sample_rate
            changed = change_waveform(waveform, rate, self.augmentation, generator)
            if self._spoiler and generator.random() < self.augmentation.spoilt:
                changed = self._spoiler.spoil(changed, rate, generator)
            mfcc = self.cache.mfcc(example.row, self.audio, waveform=changed)
            mfcc = mask_mfcc(mfcc, self._fill, self.augmentation, generator)
        return mfcc * np.float32(example.voice)

    def _read(self, row: int) -> NDArray[np.float32]:
        if row not in self._kept:
            self._kept[row] = self.cache.mfcc(row, self.audio)
        return self._kept[row]


def read_talkers(cache: Cache, rows: Sequence[int]) -> NDArray[np.float32]:
    """Voices (n, samples) float32 of equal power, of ``TALKERS`` rows at most, evenly spread."""
    voiced = [row for row in rows if cache.rows[row].has_voice]
    step = max(1, len(voiced) // TALKERS)
    voices = [cache.waveform(row).astype(np.float32) for row in voiced[::step][:TALKERS]]
    return np.stack([voice / max(float(np.sqrt(np.mean(voice**2))), 1.0) for voice in voices])


def require_device(device: str, *, bf16: bool = False) -> None:
    """Refuse a device that isn't here.

    Raises:
        TrainingError: it isn't ``cpu`` and PyTorch finds no such accelerator, or one that can't
            compute in bfloat16 where that is wanted.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise TrainingError(f"PyTorch finds no {device} device here: use --device cpu")
    if device != "cpu" and bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError("this GPU has no bfloat16: leave out --bf16")


def read_crops(cache: Cache, row: int, spec: Spec) -> NDArray[np.uint8]:
    """A row's crops (15, S, S, 3) in the spec's channel order, of the spec's size.

    A cache of larger crops serves a smaller size: they are averaged over areas, as a device
    shrinks a face. (It does so once, from the frame; the cache's crop has been through one
    resampling before.)
    """
    crops = cache.crops(row, colour=spec.video.colour)
    size = spec.video.size
    if crops.shape[1] != size:
        shrunk = (cv2.resize(one, (size, size), interpolation=cv2.INTER_AREA) for one in crops)
        return np.stack([np.asarray(one, np.uint8) for one in shrunk])
    return np.ascontiguousarray(crops)


def read_targets(cache: Cache, rows: Sequence[int], spec: Spec) -> NDArray[np.int64]:
    """Class numbers (N,) of rows, as the model of ``spec`` counts them: by name.

    Raises:
        CacheError: a row's label is none of the model's.
    """
    places = {label: place for place, label in enumerate(spec.labels)}
    names = [cache.spec.labels[cache.rows[row].emotion] for row in rows]
    foreign = sorted(set(names) - set(places))
    if foreign:
        raise CacheError(
            f"{cache.path} has clips of {', '.join(foreign)}, which the model doesn't know: it "
            f"answers {', '.join(spec.labels)}"
        )
    return np.array([places[name] for name in names], np.int64)


def measure_standardisation(cache: Cache, rows: Sequence[int], audio: AudioSpec) -> AudioSpec:
    """``audio`` with the mean and standard deviation of each MFCC over all frames of ``rows``.

    Rows without a voice don't count. Six significant digits, so that the constants read and
    compare easily.

    Raises:
        TrainingError: no row has a voice.
    """
    plain = dataclasses.replace(audio, mean=(), std=())
    voiced = [row for row in rows if cache.rows[row].has_voice]
    if not voiced:
        raise TrainingError("no training clip has a voice")
    frames = np.concatenate([cache.mfcc(row, plain) for row in voiced], axis=1).astype(np.float64)
    # A coefficient that never changes (all clips silent) would divide by zero.
    std = np.maximum(frames.std(axis=1), 1e-6)
    return dataclasses.replace(audio, mean=_rounded(frames.mean(axis=1)), std=_rounded(std))


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
