"""Golden inputs: made from the project's own sample clip, never from a user's corpus."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mer import Checkpoint
from mer_export.deploy import ReferenceNet
from mer_export.errors import ExportError
from mer_runtime.bundle import Golden
from mer_runtime.face import HaarDetector, crop_faces
from mer_runtime.media import read_window
from mer_runtime.mfcc import compute_mfcc
from mer_runtime.spec import Spec

#: Crops of the sample clip that the golden windows show.
DISTINCT_CROPS = 5
#: Share of a crop's side that the tighter golden crop cuts off on each side.
TIGHTER = 0.1
#: Level of the quieter golden voice, and of the noise added to it.
QUIET, NOISE = 0.25, 0.02


def sample_clip() -> Path:
    """The project's own clip: a portrait, moving, with a synthesised voice."""
    return Path(str(resources.files("mer_export"))) / "samples" / "portrait.mp4"


def golden_inputs(spec: Spec) -> Golden:
    """Cases without answers: the clip as it is; mirrored with a quieter, noisy voice; cropped
    tighter; without a face; without a voice.
    """
    window = read_window(sample_clip(), spec)
    if window.frames is None or window.waveform is None:
        raise ExportError(f"{sample_clip()} lacks picture or sound")
    # The cascade is in every install; which box it finds doesn't matter here.
    faces = crop_faces(window.frames, spec.video, HaarDetector())
    if faces is None:
        raise ExportError(f"no face is found in {sample_clip()}")
    noise = np.random.default_rng(0).normal(0, NOISE, spec.audio.samples)
    quiet = (QUIET * (window.waveform + noise)).astype(np.float32)
    plain_voice = compute_mfcc(window.waveform, spec.audio)
    no_voice = np.zeros_like(plain_voice)
    frames = spec.video.frames
    plain = faces.crops[np.linspace(0, frames - 1, DISTINCT_CROPS).round().astype(int)]
    mirrored, tighter = plain[:2, :, ::-1], _tighter(plain[-2:])
    crops = np.concatenate([plain, mirrored, tighter])
    steps = np.arange(frames)
    shown = steps * DISTINCT_CROPS // frames
    missing = np.full(frames, -1)
    cases: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {
        "clip": (plain_voice, shown),
        "mirrored face, quiet voice": (
            compute_mfcc(quiet, spec.audio),
            DISTINCT_CROPS + steps * 2 // frames,
        ),
        "tighter crop": (plain_voice, DISTINCT_CROPS + 2 + steps * 2 // frames),
        "face missing": (plain_voice, missing),
        "voice missing": (no_voice, shown),
    }
    unanswered = np.zeros((len(cases), len(spec.labels)), np.float32)
    return Golden(
        cases=tuple(cases),
        mfcc=np.stack([voice for voice, _ in cases.values()]),
        crops=crops,
        sequence=np.stack([sequence for _, sequence in cases.values()]),
        reference=unanswered,
        answers=unanswered,
        tolerance=0.0,
    )


@torch.inference_mode()
def answer(
    checkpoint: Checkpoint, mfcc: NDArray[np.float32], faces: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The float PyTorch reference's logits (classes,) for one window of raw inputs."""
    net = ReferenceNet(checkpoint).eval()
    logits = net(torch.from_numpy(mfcc)[None], torch.from_numpy(faces)[None])
    return np.asarray(logits[0].numpy(), np.float32)


def golden_reference(checkpoint: Checkpoint, tolerance: float) -> Golden:
    """Golden inputs with the reference's logits; the engine's own are filled in by the gate."""
    spec = checkpoint.spec
    golden = golden_inputs(spec)
    no_voice, no_face = np.zeros(spec.audio.shape, np.float32), np.zeros(spec.video.shape, np.uint8)
    logits = []
    for i in range(len(golden.cases)):
        mfcc, faces = golden.case(i)
        logits.append(
            answer(
                checkpoint,
                no_voice if mfcc is None else mfcc,
                no_face if faces is None else faces,
            )
        )
    return dataclasses.replace(golden, reference=np.stack(logits), tolerance=tolerance)


def _tighter(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = crops.shape[1]
    cut = round(TIGHTER * size)
    return np.stack(
        [
            cv2.resize(c[cut:-cut, cut:-cut], (size, size), interpolation=cv2.INTER_LINEAR)
            for c in crops
        ]
    )
