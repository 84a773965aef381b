"""Whether a window holds a voice: sound that rises and falls as speech does, and has a pitch.

Judged before any normalisation, which would make a voice of a muted microphone's last bits. Noise,
hum and fans stay as loud as they are; taps and gusts have no pitch. Music has both and passes.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

#: Seconds of a frame, and from one to the next.
FRAME, HOP = 0.032, 0.016
#: Hz: speech's band, and the edges of the bands in it.
BAND_EDGES = (150, 250, 350, 500, 700, 1000, 1400, 2000, 2800, 4000)
#: dB by which a band stands out from its quietest moment both before and after,
PROMINENCE = 8.0
#: within so many seconds,
NEIGHBOURHOOD = 0.5
#: in at least so many bands at once.
BANDS = 2
#: dB under full scale: a frame that is softer, in the whole band, counts for nothing. The last bit
#: of 16 makes -95.
FLOOR = -95.0
#: Hz: the pitch of voices, children's and shouts with them.
PITCH = (75.0, 500.0)
#: Autocorrelation at the pitch's lag, 0 to 1.
VOICED = 0.6
#: Seconds of such frames that make a voice.
LEAST = 0.1

_SILENCE = 1e-11


def hears_voice(waveform: NDArray[np.float32], rate: int) -> bool:
    """Whether a waveform (samples,) in [-1, 1] at ``rate`` Hz holds something like speech."""
    return measure_voice(waveform, rate) >= LEAST


def measure_voice(waveform: NDArray[np.float32], rate: int) -> float:
    """Seconds of frames that stand out from their surroundings and have a pitch."""
    tables = _tables(rate)
    size = len(tables.window)
    # Three frames are averaged to one.
    if len(waveform) < size + 2 * tables.hop or not waveform.any():
        return 0.0
    frames = sliding_window_view(waveform, size)[:: tables.hop] * tables.window
    # No product of matrices here: OpenBLAS's threads would wait busily into the inference after.
    inside = _square_spectra(frames)[:, : tables.end]
    bands = np.add.reduceat(inside, tables.starts, axis=1)
    bands = (bands[:-2] + bands[1:-1] + bands[2:]) / 3
    levels = 10 * np.log10(np.maximum(bands, _SILENCE))
    stands_out = np.count_nonzero(_find_prominence(levels) > PROMINENCE, axis=1) >= BANDS
    heard = stands_out & (10 * np.log10(bands.sum(axis=1) + _SILENCE) > FLOOR)
    if not heard.any():
        return 0.0
    voiced = _measure_pitch(frames[1:-1][heard], tables) > VOICED
    return float(np.count_nonzero(voiced)) * tables.hop / rate


class _Tables:
    """Everything that depends on the rate alone."""

    def __init__(self, rate: int) -> None:
        # Even, as _square_spectra wants it.
        size, self.hop = 2 * round(FRAME * rate / 2), round(HOP * rate)
        window = np.hanning(size)
        # So that a band's sum is its mean square.
        self.window = (window / np.sqrt((window**2).sum() * size / 2)).astype(np.float32)
        *starts, self.end = np.searchsorted(_spectrum_hertz(size, rate), BAND_EDGES).tolist()
        self.starts = [start for start in starts if start < self.end]  # below half the rate
        # The autocorrelation of speech's band; lag 0 first, then those of a pitch.
        hertz = _spectrum_hertz(2 * size, rate)
        self.lags = np.array([0, *range(int(rate / PITCH[1]), int(rate / PITCH[0]) + 1)])
        self.inside = slice(*np.searchsorted(hertz, (BAND_EDGES[0], BAND_EDGES[-1])).tolist())
        taper = np.correlate(window, window, "full")[size - 1 :][self.lags]
        self.taper = (taper / taper[0]).astype(np.float32)


@lru_cache(maxsize=8)
def _tables(rate: int) -> _Tables:
    return _Tables(rate)


def _spectrum_hertz(size: int, rate: int) -> NDArray[np.float64]:
    """The frequency of each column of ``_square_spectra`` for rows of ``size``."""
    return np.repeat(np.fft.rfftfreq(size, 1 / rate), 2)[1:-1]


def _square_spectra(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (n, even size) to squares of what cv2.dft packs: [Re 0, Re 1, Im 1, …]."""
    packed = cv2.dft(np.ascontiguousarray(frames), flags=cv2.DFT_ROWS)
    return np.asarray(packed * packed, np.float32)


def _find_prominence(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """dB (frames, bands) over the quietest moment before and the one after, the louder of them."""
    reach = round(NEIGHBOURHOOD / HOP)
    before = _running_minimum(levels, reach)
    after = _running_minimum(levels[::-1], reach)[::-1]
    return np.asarray(levels - np.maximum(before, after))


def _running_minimum(levels: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """The least of each value and the ``reach`` before it, by column."""
    column = np.ones((reach + 1, 1), np.uint8)
    least = cv2.erode(
        levels, column, anchor=(0, reach), borderType=cv2.BORDER_CONSTANT, borderValue=np.inf
    )
    return np.asarray(least, np.float32)


def _measure_pitch(frames: NDArray[np.float32], tables: _Tables) -> NDArray[np.float32]:
    """The highest normalised autocorrelation at a pitch's lag, of windowed frames (n, size)."""
    # Twice as many points: the autocorrelation mustn't wrap round.
    spectra = _square_spectra(np.pad(frames, ((0, 0), (0, frames.shape[1]))))
    packed = np.zeros_like(spectra)
    inside = spectra[:, tables.inside]
    # |X|^2, where cv2.dft packs Re X: a column of Re^2 and the next of Im^2.
    packed[:, tables.inside][:, ::2] = inside[:, ::2] + inside[:, 1::2]
    lagged = cv2.dft(packed, flags=cv2.DFT_ROWS | cv2.DFT_INVERSE)[:, tables.lags] / tables.taper
    return np.asarray(lagged[:, 1:].max(axis=1) / np.maximum(lagged[:, 0], 1e-30))
