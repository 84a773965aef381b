"""Make samples/portrait.mp4: a still portrait that moves a little, and a synthesised voice.

The picture is scikit-image's ``astronaut`` (NASA, public domain), which ships in its wheel. The
voice is made of glottal pulses and formants; nobody's recording is in it. Both are glad: the face
smiles, and the voice is high and lively. The same versions of numpy, OpenCV and PyAV give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import click
import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from mer_runtime.console import Command
from mer_runtime.files import replacing

SIZE = (640, 360)  # pixels, width and height
FRAME_RATE = 30  # Hz
SAMPLE_RATE = 48_000  # Hz
SECONDS = 4.2
SEED = 2018

#: Pixels of the photo: the point that the camera looks at, and the width that it sees.
FACE_CENTRE = (224.0, 122.0)
VIEW_WIDTH = 330.0

#: Formants in Hz of adult vowels (after Peterson & Barney 1952, rounded), and bandwidths. A smile
#: shortens the vocal tract, so all formants are a tenth higher here.
SMILE = 1.1
VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
}
BANDWIDTHS = (60, 70, 100)  # Hz

#: Syllables: start and length in seconds, vowel, pitch at the beginning and the end in Hz,
#: amplitude, and whether a burst of breath leads in. Glad speech is high
#: and swings widely.
SYLLABLES = (
    (0.75, 0.20, "a", 380, 290, 0.6, False),
    (1.02, 0.20, "i", 340, 370, 0.8, True),
    (1.25, 0.17, "i", 440, 390, 0.7, True),
    (1.49, 0.23, "e", 390, 490, 0.8, True),
    (1.74, 0.20, "e", 330, 250, 0.6, True),
    (1.97, 0.17, "e", 470, 610, 0.8, False),
    (2.20, 0.17, "e", 380, 450, 0.8, True),
    (2.46, 0.46, "i", 480, 400, 0.9, False),
)


def draw_frame(time: float) -> NDArray[np.uint8]:
    """The picture at ``time`` seconds, (360, 640, 3) RGB: a slow pan, zoom and tilt."""
    turn = 2 * np.pi * time / SECONDS
    centre_x = FACE_CENTRE[0] + 12 * np.sin(turn)
    centre_y = FACE_CENTRE[1] + 5 * np.sin(2 * turn)
    zoom = SIZE[0] / VIEW_WIDTH * (1 + 0.06 * np.sin(turn - 1))
    turned = cv2.getRotationMatrix2D((centre_x, centre_y), 3 * np.sin(turn + 0.5), zoom)
    matrix = np.asarray(turned, np.float64)
    matrix[:, 2] += (SIZE[0] / 2 - centre_x, SIZE[1] / 2 - centre_y)
    frame = cv2.warpAffine(
        data.astronaut(), matrix, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(frame, np.uint8)


def synthesise_voice(pitch: float = 1.0, seed: int = SEED) -> NDArray[np.float32]:
    """(samples,) in [-1, 1] at 48 kHz: eight syllables with pauses, pitch up and down.

    Args:
        pitch: factor of every syllable's pitch.
        seed: draws breath and noise.
    """
    generator = np.random.default_rng(seed)
    voice = np.zeros(round(SECONDS * SAMPLE_RATE))
    for start, length, vowel, low, high, amplitude, breathy in SYLLABLES:
        pulses = _glottal_pulses(length, pitch * low, pitch * high, generator)
        sound = _filter(pulses, [SMILE * formant for formant in VOWELS[vowel]])
        sound *= amplitude * np.hanning(len(sound)) ** 0.5 / np.abs(sound).max()
        at = round(start * SAMPLE_RATE)
        voice[at : at + len(sound)] += sound
        if breathy:
            hiss = np.diff(generator.standard_normal(round(0.06 * SAMPLE_RATE) + 1))
            hiss *= 0.12 * np.hanning(len(hiss)) / np.abs(hiss).max()
            voice[at - len(hiss) : at] += hiss
    voice += 0.0005 * generator.standard_normal(len(voice))  # a room is never quite silent
    return np.asarray(0.6 * voice / np.abs(voice).max(), np.float32)


def _glottal_pulses(
    seconds: float, low: float, high: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Flow through the glottis (Rosenberg 1971), differentiated as lips radiate it."""
    ticks = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = np.linspace(low, high, len(ticks)) * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * ticks))
    phase = np.cumsum(pitch / SAMPLE_RATE) % 1
    opening, closing = 0.4, 0.16  # shares of one period
    flow = np.where(
        phase < opening,
        0.5 * (1 - np.cos(np.pi * phase / opening)),
        np.where(phase < opening + closing, np.cos(np.pi / 2 * (phase - opening) / closing), 0.0),
    )
    breath = 0.02 * generator.standard_normal(len(flow))
    return np.diff(flow + breath * flow, prepend=0.0)


def _filter(source: NDArray[np.float64], formants: Sequence[float]) -> NDArray[np.float64]:
    """Through one resonator a formant, by their impulse responses (30 ms, then inaudible)."""
    ticks = np.arange(round(0.03 * SAMPLE_RATE)) / SAMPLE_RATE
    for formant, bandwidth in zip(formants, BANDWIDTHS, strict=True):
        response = np.exp(-np.pi * bandwidth * ticks) * np.sin(2 * np.pi * formant * ticks)
        source = np.convolve(source, response)[: len(source)]
        source /= np.abs(source).max()
    return source


def make_clip(
    path: Path,
    draw: Callable[[float], NDArray[np.uint8]] = draw_frame,
    voice: NDArray[np.float32] | None = None,
    preset: str = "slow",
) -> None:
    """Encode a clip as H.264 and AAC, by a temporary name.

    Args:
        draw: the picture at a time in seconds, (360, 640, 3) RGB.
        voice: (samples,) in [-1, 1] at 48 kHz; by default the sample clip's.
        preset: of x264.

    Raises:
        OutputError: the file can't be written.
    """
    with replacing(path) as part:
        _encode(part, draw, synthesise_voice() if voice is None else voice, preset)


def _encode(
    path: Path,
    draw: Callable[[float], NDArray[np.uint8]],
    samples: NDArray[np.float32],
    preset: str,
) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.width, video.height = SIZE
        video.pix_fmt = "yuv420p"
        # One thread: x264's answer depends on how many slices it is cut into.
        video.options = {"crf": "27", "preset": preset, "threads": "1"}
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 64_000
        packets = []
        for i in range(round(SECONDS * FRAME_RATE)):
            frame = av.VideoFrame.from_ndarray(draw(i / FRAME_RATE), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FRAME_RATE)
            packets += video.encode(frame)
        voice = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        voice.sample_rate = SAMPLE_RATE
        voice.pts, voice.time_base = 0, Fraction(1, SAMPLE_RATE)
        packets += video.encode(None) + audio.encode(voice) + audio.encode(None)
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            container.mux(packet)


@click.command(cls=Command)
@click.argument(
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    # Through the link: mer-export ships the file, samples/ points to it.
    default=(Path(__file__).parents[1] / "samples" / "portrait.mp4").resolve(),
    required=False,
)
def main(out: Path) -> None:
    """Write the sample clip to OUT (samples/portrait.mp4).

    \b
    Example:
        python scripts/make_sample_clip.py /tmp/portrait.mp4
    """
    make_clip(out)
    click.echo(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
