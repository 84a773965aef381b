"""Sounds that are no voice, as a device hears them; all draws come from a given generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer.data.corruptions import FULL_SCALE, Waveform, make_pink_noise


@dataclass(frozen=True)
class Sound:
    """A kind of sound: ``make`` takes times in seconds (samples,) and a generator.

    ``music`` is told apart: it has a melody and a rhythm, and passes for a voice.
    """

    name: str
    what: str
    make: Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.floating]]
    music: bool = False

    def draw(self, samples: int, rate: int, generator: np.random.Generator) -> Waveform:
        """(samples,) float32 in [-1, 1] at ``rate`` Hz."""
        return np.asarray(self.make(np.arange(samples) / rate, generator), np.float32)


def list_sounds() -> list[Sound]:
    """All rows of the table."""
    return [
        Sound("silence", "zeros", lambda t, g: np.zeros(len(t))),
        Sound(
            "muted microphone",
            "the last of 16 bits: -1, 0 or 1, at random",
            lambda t, g: g.integers(-1, 2, len(t)) / FULL_SCALE,
        ),
        Sound("white noise -70 dBFS", "standard deviation", lambda t, g: _white(t, g, -70)),
        Sound(
            "the same in 16 bits",
            "rounded to them",
            lambda t, g: np.rint(_white(t, g, -70) * FULL_SCALE) / FULL_SCALE,
        ),
        Sound("white noise -30 dBFS", "standard deviation", lambda t, g: _white(t, g, -30)),
        Sound("pink noise -40 dBFS", "standard deviation", lambda t, g: _pink(t, g, -40)),
        Sound("hum, 50 Hz", _HUM, lambda t, g: _hum(t, g, 50)),
        Sound("hum, 60 Hz", _HUM, lambda t, g: _hum(t, g, 60)),
        Sound(
            "hum that is switched on",
            "50 Hz, at a moment of the window, over white noise of -80 dBFS",
            lambda t, g: _hum(t, g, 50) * (t > g.uniform(0.5, 3.0)) + _white(t, g, -80),
        ),
        Sound("fan", "pink noise that swells by 30 %, and a blade tone with harmonics", _fan),
        Sound("keyboard", "20 taps: bursts of white noise, 5 ms", _taps),
        Sound("wind", "pink noise whose level wanders by 20 dB", _wind),
        Sound("melody", "8 plucked notes with 5 harmonics", _melody, music=True),
        Sound("chords", "4 held tones that tremble, as an organ's", _chord, music=True),
    ]


_HUM = "and 11 harmonics, peak -60 to -6 dBFS"


def _white(t: NDArray[np.float64], draw: np.random.Generator, level: float) -> NDArray[np.float64]:
    return np.asarray(10 ** (level / 20) * draw.standard_normal(len(t)))


def _pink(t: NDArray[np.float64], draw: np.random.Generator, level: float) -> NDArray[np.float64]:
    return np.asarray(10 ** (level / 20) * make_pink_noise(len(t), draw), np.float64)


def _tones(
    t: NDArray[np.float64], draw: np.random.Generator, hertz: float, count: int
) -> NDArray[np.float64]:
    """A fundamental and harmonics of falling, random strength, with their peak at 1."""
    total = np.zeros(len(t))
    for k in range(1, count + 1):
        total += draw.uniform(0.2, 1) / k * np.sin(2 * np.pi * hertz * k * t + draw.uniform(0, 6.3))
    return np.asarray(total / np.abs(total).max())


def _hum(t: NDArray[np.float64], draw: np.random.Generator, hertz: float) -> NDArray[np.float64]:
    return np.asarray(10 ** (draw.uniform(-60, -6) / 20) * _tones(t, draw, hertz, 12))


def _fan(t: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    swell = 1 + 0.3 * np.sin(2 * np.pi * draw.uniform(0.3, 3) * t)
    blades = 0.005 * _tones(t, draw, draw.uniform(80, 300), 8)
    return np.asarray(_pink(t, draw, -40) * swell + blades)


def _taps(t: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    strength = np.zeros(len(t))
    for at in draw.uniform(0, t[-1], 20):
        strength += np.where(t >= at, np.exp(-200 * np.maximum(t - at, 0)), 0)
    return np.asarray(_white(t, draw, -14) * strength + _white(t, draw, -80))


def _wind(t: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    levels = np.interp(t, np.linspace(0, t[-1], 8), draw.uniform(-20, 0, 8))
    return np.asarray(_pink(t, draw, -26) * 10 ** (levels / 20))


def _melody(t: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    total = np.zeros(len(t))
    for part in np.array_split(np.arange(len(t)), 8):
        since = t[part] - t[part[0]]
        hertz = 220.0 * 2 ** (int(draw.integers(0, 24)) / 12)
        total[part] = 0.1 * _tones(since, draw, hertz, 5) * np.exp(-4 * since)
    return total


def _chord(t: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    tremble = 1 + 0.2 * np.sin(2 * np.pi * 5 * t)
    hertz = 220 * 2 ** (draw.integers(0, 24, 4) / 12)
    phases = draw.uniform(0, 6.3, 4)
    tones = [np.sin(2 * np.pi * h * t + p) for h, p in zip(hertz, phases, strict=True)]
    return np.asarray(0.05 * tremble * np.sum(tones, axis=0))
