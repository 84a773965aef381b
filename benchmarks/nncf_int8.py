"""NNCF's stock post-training INT8 of the untouched network; runs in NNCF's own environment."""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import openvino


def main() -> None:
    folder = Path(sys.argv[1])
    windows = np.load(folder / "windows.npz")
    samples = [
        {"mfcc": mfcc[None], "faces": faces[None]}
        for mfcc, faces in zip(windows["mfcc"], windows["faces"], strict=True)
    ]
    model = openvino.Core().read_model(folder / "untouched.onnx")
    quantised = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    openvino.save_model(quantised, folder / "untouched-nncf.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
