"""MFCCs as ``librosa.feature.mfcc`` 0.11 computes them, with numpy and OpenCV's DFT.

The steps: centred frames (zero padding), periodic Hann window, power spectrum, Slaney mel
filters, decibels under the clip's maximum, orthonormal DCT-II.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mer_runtime.spec import Amplitude, AudioSpec

#: librosa.power_to_db's floor.
AMIN = 1e-10
#: Slaney's mel scale: linear to 1 kHz (200/3 Hz a mel), then 27 mels for a factor of 6.4.
LINEAR_HZ_PER_MEL = 200 / 3
LOG_FROM_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27
#: Mel filters in one product: each sees little of the spectrum, and neighbours much the same.
#: So few that OpenBLAS takes one thread: its others would wait busily into the inference after.
MELS_AT_ONCE = 4


def compute_mfcc(waveform: NDArray[np.float32], spec: AudioSpec) -> NDArray[np.float32]:
    """Amplitude-normalise a waveform and compute its MFCCs.

    Args:
        waveform: (samples,) float32; a window of ``spec.samples`` gives ``spec.shape``.

    Returns:
        (n_mfcc, 1 + samples // hop_length) float32, in decibels, not standardised.
    """
    tables = _tables(spec.sample_rate, spec.n_fft, spec.n_mels, spec.n_mfcc)
    half = spec.n_fft // 2
    padded = np.zeros(len(waveform) + 2 * half, np.float32)
    padded[half : half + len(waveform)] = normalise_amplitude(waveform, spec.amplitude)
    frames = sliding_window_view(padded, spec.n_fft)[:: spec.hop_length]
    # One array all the way: memory that is new to the process costs more than the arithmetic.
    work = np.empty(frames.shape, np.float32)
    np.multiply(frames, tables.window, out=work)
    cv2.dft(work, dst=work, flags=cv2.DFT_ROWS)
    np.multiply(work, work, out=work)
    mel = np.empty((len(work), spec.n_mels), np.float32)
    for band in tables.bands:
        np.matmul(work[:, band.inputs], band.weights, out=mel[:, band.mels])
    np.maximum(mel, AMIN, out=mel)
    decibels = np.log10(mel, out=mel)
    decibels *= 10
    np.maximum(decibels, decibels.max() - spec.top_db, out=decibels)
    return np.ascontiguousarray((decibels @ tables.dct).T, dtype=np.float32)


def normalise_amplitude(waveform: NDArray[np.float32], amplitude: Amplitude) -> NDArray[np.float32]:
    """Scale a waveform to a peak of 1 (``peak``) or leave it (``none``); silence stays."""
    if amplitude == "none" or len(waveform) == 0:
        return waveform
    peak = max(float(waveform.max()), -float(waveform.min()))
    return waveform if peak == 0 else waveform / np.float32(peak)


@dataclass(frozen=True)
class _Band:
    """Neighbouring mel filters, cut to the part of the spectrum that they see.

    Attributes:
        inputs: the columns of cv2.dft's packed rows, squared, that are summed.
        mels: the columns of the result.
        weights: (inputs, mels) float32.
    """

    inputs: slice
    mels: slice
    weights: NDArray[np.float32]


class _Tables:
    """Everything that depends on the spec alone."""

    def __init__(self, sample_rate: int, n_fft: int, n_mels: int, n_mfcc: int) -> None:
        steps = np.arange(n_fft)
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * steps / n_fft)).astype(np.float32)
        packed = _pack(mel_filters(sample_rate, n_fft, n_mels))
        self.bands = [_cut(packed, i) for i in range(0, n_mels, MELS_AT_ONCE)]
        order = np.arange(n_mfcc)
        dct = np.cos(np.pi * order * (np.arange(n_mels)[:, None] + 0.5) / n_mels)
        dct *= np.sqrt(2 / n_mels)
        dct[:, 0] /= np.sqrt(2)
        # float64: a float32 product loses 1e-3 where large terms cancel.
        self.dct = dct


def _pack(filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filters of |X|² (n, 1 + N / 2) to (N, n), for squares of what cv2.dft gives.

    Its rows are packed, [Re 0, Re 1, Im 1, …, Re N/2]: the product itself adds Re² and Im².
    """
    return np.repeat(filters, 2, axis=1)[:, 1:-1].T


def _cut(packed: NDArray[np.float32], first: int) -> _Band:
    weights = packed[:, first : first + MELS_AT_ONCE]
    used = np.flatnonzero(weights.any(axis=1))
    inputs = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
    mels = slice(first, first + weights.shape[1])
    return _Band(inputs, mels, np.ascontiguousarray(weights[inputs]))


@lru_cache(maxsize=8)
def _tables(sample_rate: int, n_fft: int, n_mels: int, n_mfcc: int) -> _Tables:
    return _Tables(sample_rate, n_fft, n_mels, n_mfcc)


def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> NDArray[np.float32]:
    """Triangular filters of equal area (n_mels, 1 + n_fft // 2), as ``librosa.filters.mel``."""
    top = _mel(np.array(sample_rate / 2))
    edges = _hertz(np.linspace(0.0, float(top), n_mels + 2, dtype=np.float64))
    bins = np.linspace(0, sample_rate / 2, 1 + n_fft // 2)
    widths = np.diff(edges)
    slopes = edges[:, None] - bins[None, :]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    filters *= (2 / (edges[2:] - edges[:-2]))[:, None]
    return np.asarray(filters, np.float32)


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    log = LOG_FROM_HZ / LINEAR_HZ_PER_MEL + np.log(np.maximum(hertz, 1) / LOG_FROM_HZ) / LOG_STEP
    return np.where(hertz < LOG_FROM_HZ, hertz / LINEAR_HZ_PER_MEL, log)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = LOG_FROM_HZ / LINEAR_HZ_PER_MEL
    log = LOG_FROM_HZ * np.exp(LOG_STEP * (mel - knee))
    return np.where(mel < knee, mel * LINEAR_HZ_PER_MEL, log)
