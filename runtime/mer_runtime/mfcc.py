"""MFCCs as ``librosa.feature.mfcc`` 0.11 computes them, with numpy and OpenCV's DFT.

The steps: centred frames (zero padding), periodic Hann window, power spectrum, Slaney mel
filters, decibels under the clip's maximum, orthonormal DCT-II.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.spec import Amplitude, AudioSpec

#: librosa.power_to_db's floor.
AMIN = 1e-10
#: Slaney's mel scale: linear to 1 kHz (200/3 Hz a mel), then 27 mels for a factor of 6.4.
LINEAR_HZ_PER_MEL = 200 / 3
LOG_FROM_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27


def compute_mfcc(waveform: NDArray[np.float32], spec: AudioSpec) -> NDArray[np.float32]:
    """Amplitude-normalise a waveform and compute its MFCCs.

    Args:
        waveform: (samples,) float32; a window of ``spec.samples`` gives ``spec.shape``.

    Returns:
        (n_mfcc, 1 + samples // hop_length) float32, in decibels, not standardised.
    """
    tables = _tables(spec.sample_rate, spec.n_fft, spec.n_mels, spec.n_mfcc)
    signal = normalise_amplitude(waveform, spec.amplitude)
    padded = np.pad(signal, spec.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.n_fft)[:: spec.hop_length]
    spectrum = cv2.dft(frames * tables.window, flags=cv2.DFT_ROWS)
    mel = tables.mel @ _power(np.asarray(spectrum)).T
    decibels = 10 * np.log10(np.maximum(mel, AMIN))
    decibels = np.maximum(decibels, decibels.max() - spec.top_db)
    return np.ascontiguousarray(tables.dct @ decibels, dtype=np.float32)


def normalise_amplitude(waveform: NDArray[np.float32], amplitude: Amplitude) -> NDArray[np.float32]:
    """Scale a waveform to a peak of 1 (``peak``) or leave it (``none``); silence stays."""
    if amplitude == "none" or len(waveform) == 0:
        return waveform
    peak = max(float(waveform.max()), -float(waveform.min()))
    return waveform if peak == 0 else waveform / np.float32(peak)


class _Tables:
    """Everything that depends on the spec alone."""

    def __init__(self, sample_rate: int, n_fft: int, n_mels: int, n_mfcc: int) -> None:
        steps = np.arange(n_fft)
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * steps / n_fft)).astype(np.float32)
        self.mel = mel_filters(sample_rate, n_fft, n_mels)
        order = np.arange(n_mfcc)[:, None]
        dct = np.cos(np.pi * order * (np.arange(n_mels) + 0.5) / n_mels) * np.sqrt(2 / n_mels)
        dct[0] /= np.sqrt(2)
        # float64: a float32 product loses 1e-3 where large terms cancel.
        self.dct = dct


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


def _power(packed: NDArray[np.float32]) -> NDArray[np.float32]:
    """|X|² from cv2.dft's packed rows [Re 0, Re 1, Im 1, …, Re N/2] to (rows, 1 + N / 2)."""
    squared = packed * packed
    power = np.empty((len(packed), packed.shape[1] // 2 + 1), np.float32)
    power[:, 0] = squared[:, 0]
    power[:, -1] = squared[:, -1]
    power[:, 1:-1] = squared[:, 1:-1:2] + squared[:, 2:-1:2]
    return power
