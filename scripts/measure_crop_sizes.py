"""Show what a face crop of each size holds, and how far answers move between sizes.

    python scripts/measure_crop_sizes.py samples/portrait.mp4 ravdess-real/*.mp4

writes docs/crop-sizes.json and its table, and for the sample clip a picture,
docs/explanation/crop-sizes.png. FER2013's photos have 48 pixels: that an encoder names them as well
at 96 pixels as at 224 proves nothing for sharper video.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from make_tables import ROOT, write_all_tables
from mer import load_checkpoint
from mer.data.clip import prepare_inputs
from mer.evaluate.classifier import NetworkClassifier
from mer.weights import SHIPPED, shipped_checkpoint
from mer_export.proof.golden import sample_clip
from mer_runtime.console import Command
from mer_runtime.errors import MerError
from mer_runtime.feeds import name_modality
from mer_runtime.files import write_file
from mer_runtime.inputs.face import load_detector
from mer_runtime.inputs.media import read_window
from mer_runtime.model import softmax
from mer_runtime.spec import Spec

DATA = ROOT / "docs" / "crop-sizes.json"
PICTURE = ROOT / "docs" / "explanation" / "crop-sizes.png"
SIZES = (96, 112, 224)


@click.command(cls=Command)
@click.argument("clips", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--model", type=click.Choice(SHIPPED), default="ia-compact", show_default=True)
def main(clips: Sequence[Path], model: str) -> None:
    """Answer CLIPS with faces cropped at 96, 112 and 224 pixels, and write the table."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(shipped_checkpoint(model))
    rows = []
    for clip in clips:
        crops, mfcc = cut_sizes(clip, checkpoint.spec)
        answers = {}
        for size, faces in crops.items():
            spec = _resized(checkpoint.spec, size)
            network = NetworkClassifier(dataclasses.replace(checkpoint, spec=spec))
            shown = name_modality(face=True, voice=mfcc is not None)
            logits = network.classify(mfcc, network.encode(faces))
            shares = softmax(logits, checkpoint.temperatures.of(shown))
            answers[str(size)] = dict(zip(spec.labels, shares.round(4).tolist(), strict=True))
        rows.append({"clip": clip.name, "voice": mfcc is not None, "answers": answers})
        if clip.resolve() == sample_clip().resolve():
            write_file(PICTURE, draw_sizes({size: one[7] for size, one in crops.items()}))
    described = {"model": model, "rows": rows}
    write_file(DATA, (json.dumps(described, indent=1) + "\n").encode())
    write_all_tables()


def cut_sizes(
    clip: Path, spec: Spec
) -> tuple[dict[int, NDArray[np.uint8]], NDArray[np.float32] | None]:
    """A clip's crops (frames, S, S, 3) by size S, and its MFCCs, None where no voice is there.

    Raises:
        MerError: the clip can't be read, or shows no face.
    """
    crops, mfcc = {}, None
    window, detector = read_window(clip, spec), load_detector()
    for size in SIZES:
        inputs = prepare_inputs(window, _resized(spec, size), detector)
        if inputs.faces is None:
            raise MerError(f"{clip}: there is no face in it: take another clip")
        crops[size], mfcc = inputs.faces.crops, inputs.mfcc
    return crops, mfcc


def draw_sizes(crops: dict[int, NDArray[np.uint8]]) -> bytes:
    """One crop at each size, side by side at one height, as a PNG; pixels stay square blocks."""
    tallest = max(crops)
    tiles = [
        cv2.resize(crop, (tallest, tallest), interpolation=cv2.INTER_NEAREST)
        for crop in crops.values()
    ]
    _, png = cv2.imencode(".png", cv2.cvtColor(np.hstack(tiles), cv2.COLOR_RGB2BGR))
    return png.tobytes()


def _resized(spec: Spec, size: int) -> Spec:
    video: Any = dataclasses.replace(spec.video, size=size)
    return dataclasses.replace(spec, video=video)


if __name__ == "__main__":
    main()
