"""Ways to spoil pictures and sounds: for training that shall stand them, and for measuring it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.waveform import resample

Frames = NDArray[np.uint8]
Waveform = NDArray[np.float32]

#: Telephone speech (ITU-T G.711, G.712): sample rate and pass band in Hz, and µ-law's µ.
TELEPHONE_RATE = 8_000
TELEPHONE_BAND = (300.0, 3_400.0)
MU = 255
#: Half of a 16-bit sample's range.
FULL_SCALE = 32_768
#: A room is known by the time in which its echo falls by so much.
DECAY_DECIBELS = 60


def change_brightness(frames: Frames, factor: float) -> Frames:
    """Pixels times ``factor``, rounded, at most 255."""
    table = np.clip(np.rint(np.arange(256) * factor), 0, 255).astype(np.uint8)
    return np.asarray(table[frames])


def blur(frames: Frames, sigma: float) -> Frames:
    """Gaussian blur of each frame; ``sigma`` in pixels."""
    return np.stack([np.asarray(cv2.GaussianBlur(f, (0, 0), sigma), np.uint8) for f in frames])


def compress_jpeg(frames: Frames, quality: int) -> Frames:
    """Each frame through baseline JPEG; ``quality`` 1 to 100, as libjpeg counts."""
    pictures = []
    for frame in frames:
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
        pictures.append(np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8))
    return np.stack(pictures)


def add_noise(waveform: Waveform, noise: Waveform, snr: float) -> Waveform:
    """``waveform`` with ``noise`` of the same length, ``snr`` dB under its mean power.

    Levels above full scale stay: amplitudes are normalised before the MFCCs. A silent waveform,
    or silent noise, changes nothing.
    """
    loudness, power = float(np.mean(waveform**2)), float(np.mean(noise**2))
    if power == 0:
        return waveform
    return np.asarray(
        waveform + noise * np.sqrt(loudness / power / 10 ** (snr / 10)), dtype=np.float32
    )


def make_pink_noise(samples: int, generator: np.random.Generator) -> Waveform:
    """(samples,) float32 Gaussian noise whose power falls as 1/f, mean 0 and variance about 1."""
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    amplitude = 1 / np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    amplitude[0] = 0
    noise = np.fft.irfft(spectrum * amplitude, samples)
    return np.asarray(noise / noise.std(), np.float32)


def change_gain(waveform: Waveform, decibels: float) -> Waveform:
    """Louder or softer as a recorder's gain makes it: clipped at full scale, kept in 16 bits."""
    changed = np.clip(waveform * 10 ** (decibels / 20), -1, 1 - 1 / FULL_SCALE)
    return np.asarray(np.rint(changed * FULL_SCALE) / FULL_SCALE, np.float32)


def limit_rate(waveform: Waveform, rate: int, to_rate: int) -> Waveform:
    """Resampled from ``rate`` to ``to_rate`` Hz and back: nothing is left above half of it."""
    return _fit(resample(resample(waveform, rate, to_rate), to_rate, rate), len(waveform))


def pass_telephone(waveform: Waveform, rate: int) -> Waveform:
    """``waveform`` at ``rate`` Hz as it comes out of a telephone line: band, rate and µ-law."""
    narrow = resample(waveform, rate, TELEPHONE_RATE)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(len(narrow), 1 / TELEPHONE_RATE)
    low, high = TELEPHONE_BAND
    heard = np.fft.irfft(spectrum * ((hertz >= low) & (hertz <= high)), len(narrow))
    companded = np.sign(heard) * np.log1p(MU * np.minimum(np.abs(heard), 1)) / np.log1p(MU)
    coded = np.clip(np.rint(companded * 128), -128, 127) / 128
    line = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(MU)) / MU
    return _fit(resample(line.astype(np.float32), TELEPHONE_RATE, rate), len(waveform))


def add_echo(
    waveform: Waveform, rate: int, decay: float, share: float, generator: np.random.Generator
) -> Waveform:
    """The sound in a room: noise that dies away, convolved with it and added.

    Args:
        decay: seconds in which the echo falls by 60 dB.
        share: power of the echo, of that of the direct sound.
    """
    ticks = np.arange(max(int(decay * rate), 1)) / rate
    tail = generator.standard_normal(len(ticks)) * 10 ** (-DECAY_DECIBELS / 20 * ticks / decay)
    tail *= np.sqrt(share / max(float((tail**2).sum()), 1e-12))
    size = len(waveform) + len(tail)
    echo = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(tail, size), size)
    return np.asarray(waveform + echo[: len(waveform)], np.float32)


def _fit(waveform: Waveform, samples: int) -> Waveform:
    """Cut or zero-filled at the end, where resampling there and back missed by a few samples."""
    return np.pad(waveform[:samples], (0, max(samples - len(waveform), 0)))
