"""Golden inputs: made from the project's own sample clip, never from a user's corpus."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mer import Checkpoint
from mer.evaluate.classifier import NetworkClassifier
from mer_export.errors import ExportError
from mer_runtime.feeds import Temperatures
from mer_runtime.golden import Golden
from mer_runtime.inputs.face import HaarDetector
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.inputs.window_faces import crop_faces
from mer_runtime.proof.self_test import encode_crops, replay
from mer_runtime.proof.signals import signal_crop, signal_mfcc
from mer_runtime.spec import Spec

#: Crops of the sample clip that the golden windows show.
DISTINCT_CROPS = 3
#: How much larger and smaller than it is a face is shown, too.
CLOSER, FARTHER = 1.25, 0.75
#: Degrees of its turn, shares of a crop's side of its shift, and the light that is left.
TURNED, SHIFTED, DARKER = 12.0, 0.1, 0.5
#: Level of the quieter golden voice, and of the noise added to it.
QUIET, NOISE = 0.25, 0.02
#: Gain of the loud golden voice, and how much faster the fast one is.
LOUD, FASTER = 8.0, 1.25


def sample_clip() -> Path:
    """The project's own clip: a portrait, moving, with a synthesised voice."""
    return Path(str(resources.files("mer_export"))) / "samples" / "portrait.mp4"


def golden_inputs(spec: Spec) -> Golden:
    """Cases without answers: the sample clip as it is, mirrored, cropped tighter, in other orders
    of its frames, with quieter, louder and faster voices, and without its face or its voice.

    It shows one face. Crops of it are rounded alike, so some are changed as far as other people's
    would be: turned, shifted, darker, smaller, upside down. What is then still added to all of
    them is a fault, and no rounding.
    """
    window = read_window(sample_clip(), spec)
    if window.frames is None or window.waveform is None:
        raise ExportError(f"{sample_clip()} lacks picture or sound")
    # The cascade is in every install; which box it finds doesn't matter here.
    faces = crop_faces(window.frames, spec.video, HaarDetector())
    if faces is None:
        raise ExportError(f"no face is found in {sample_clip()}")
    frames = spec.video.frames
    plain = faces.crops[np.linspace(0, frames - 1, DISTINCT_CROPS).round().astype(int)]
    tight = [_move(crop, zoom=CLOSER) for crop in plain[-2:]]
    crops = np.stack([*plain, *plain[:2, :, ::-1], *tight, *_vary(plain)])
    steps = np.arange(frames)
    clip = steps * DISTINCT_CROPS // frames
    mirrored = DISTINCT_CROPS + steps * 2 // frames
    tighter = mirrored + 2
    every, missing = steps * len(crops) // frames, np.full(frames, -1)
    voices = _voices(window.waveform, spec)
    silence = np.zeros(spec.audio.shape, np.float32)
    cases: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {
        "clip": (voices["plain"], clip),
        "mirrored face, quiet voice": (voices["quiet"], mirrored),
        "tighter crop": (voices["plain"], tighter),
        "backwards, loud voice": (voices["loud"], clip[::-1]),
        "every crop, fast voice": (voices["fast"], every),
        "face missing": (voices["plain"], missing),
        "face missing, quiet voice": (voices["quiet"], missing),
        "face missing, fast voice": (voices["fast"], missing),
        "voice missing": (silence, clip),
        "voice missing, mirrored face": (silence, mirrored),
        "voice missing, tighter crop": (silence, tighter),
        "voice missing, every crop": (silence, every),
    }
    unanswered = np.zeros((len(cases), len(spec.labels)), np.float32)
    return Golden(
        cases=tuple(cases),
        mfcc=np.stack([voice for voice, _ in cases.values()]),
        crops=crops,
        sequence=np.stack([sequence for _, sequence in cases.values()]),
        features=np.zeros((len(crops), 0), np.float32),
        reference=unanswered,
        answers=unanswered,
        tolerance=0.0,
        temperatures=Temperatures(),
        signal_mfcc=signal_mfcc(spec.audio),
        signal_crop=signal_crop(spec.video),
    )


def golden_reference(checkpoint: Checkpoint) -> Golden:
    """Golden inputs with what the reference makes of them; the gate fills in the rest."""
    spec = checkpoint.spec
    golden = golden_inputs(spec)
    network = NetworkClassifier(checkpoint)
    return dataclasses.replace(
        golden,
        features=encode_crops(network, spec, golden),
        reference=replay(network, spec, network.no_face, golden),
        temperatures=checkpoint.temperatures,
    )


def _voices(waveform: NDArray[np.float32], spec: Spec) -> dict[str, NDArray[np.float32]]:
    """MFCCs of the voice as it is, quieter in noise, louder until it clips, and faster."""
    samples = spec.audio.samples
    noise = np.random.default_rng(0).normal(0, NOISE, samples)
    places = np.arange(samples) * FASTER
    waves = {
        "plain": waveform,
        "quiet": QUIET * (waveform + noise),
        "loud": (LOUD * waveform).clip(-1, 1),
        "fast": np.interp(places, np.arange(samples), waveform, right=0.0),
    }
    return {name: compute_mfcc(w.astype(np.float32), spec.audio) for name, w in waves.items()}


def _vary(plain: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """What stands for other faces: changed crops of this one."""
    first, last = plain[0], plain[-1]
    return [
        _move(first, degrees=TURNED),
        _move(last[:, ::-1], degrees=-TURNED),
        _move(first, shift=SHIFTED),
        _move(last[:, ::-1], shift=-SHIFTED),
        _move(first, zoom=FARTHER),
        (first * DARKER).astype(np.uint8),
        first[::-1],
    ]


def _move(
    crop: NDArray[np.uint8], *, degrees: float = 0.0, zoom: float = 1.0, shift: float = 0.0
) -> NDArray[np.uint8]:
    """A crop (S, S, 3) turned and enlarged around its middle, then shifted right and down."""
    size = crop.shape[0]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), degrees, zoom)
    matrix = turn + np.array([[0, 0, shift * size]])
    moved = cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)
