"""Answer a bundle's golden inputs, or prepared clips, and show the encoder's last integers.

    python scripts/drive_bundle.py BUNDLE OUT.npz [CLIPS.npz]

It needs the runtime and an engine alone, so that it runs in an emulator's Python.

CLIPS has ``mfcc`` (n, n_mfcc, T) and ``crops`` (n, frames, S, S, 3), and OUT gets logits
(n, classes): ``both``, of the voice alone ``audio``, of the face alone ``video``. Without it OUT
gets ``logits`` of the golden inputs and, of their crops, ``features``, and ``integers`` in steps:
the encoder's last tensor on a grid. A copy of the encoder's graph puts that out, too; ``same``
says whether the copy's features are the bundle's to the bit.

ONNX Runtime's copy lies beside OUT: making it takes the package onnx. OpenVINO's is made here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime import Recognizer
from mer_runtime.bundle import FACES, FEATURES, Bundle
from mer_runtime.engines.onnx import open_session
from mer_runtime.files import read_graph
from mer_runtime.proof.self_test import replay

#: ONNX Runtime's copy: its other output are the integers.
COPY_FILE = "encoder-integers.onnx"

#: Crops to features and integers.
Encode = Callable[[NDArray[np.uint8]], "tuple[NDArray[Any], NDArray[Any]]"]


def open_onnx(copy: Path) -> Encode:
    """The copy in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = open_session(copy, options)
    (integers,) = {output.name for output in session.get_outputs()} - {FEATURES}
    return lambda crops: tuple(session.run([FEATURES, integers], {FACES: crops}))


def open_openvino(bundle: Bundle, crops: int) -> Encode:
    """A copy of the bundle's encoder for so many crops."""
    import openvino

    core = openvino.Core()
    weights = bundle.encoder.with_name(bundle.encoder.name.replace(".xml", ".bin"))
    model = core.read_model(read_graph(bundle.encoder), read_graph(weights))
    model.reshape({FACES: [crops, *bundle.spec.video.shape[1:]]})
    operations = model.get_ordered_ops()
    rounding = [one for one in operations if one.get_type_name() == "FakeQuantize"][-1]
    low, high = (rounding.input_value(i).get_node().data.item() for i in (3, 4))
    step = (high - low) / (rounding.get_levels() - 1)
    model.add_outputs(rounding.output(0))
    precision = bundle.engine["inference_precision"]
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(model, "CPU", settings)

    def encode(crops: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        features, rounded = compiled(crops).values()
        return features.copy(), np.rint(rounded / step).astype(np.int32)

    return encode


def answer_clips(
    recognizer: Recognizer, mfcc: NDArray[np.float32], crops: NDArray[np.uint8]
) -> dict[str, Any]:
    """Logits (n, classes) by what is fed."""
    rows: dict[str, list[Any]] = {"both": [], "audio": [], "video": []}
    for voice, faces in zip(mfcc, crops, strict=True):
        features = recognizer.encode(faces)
        rows["both"].append(recognizer.classify(voice, features))
        rows["audio"].append(recognizer.classify(voice, None))
        rows["video"].append(recognizer.classify(None, features))
    return {name: np.stack(logits) for name, logits in rows.items()}


def main(folder: str, out: str, clips: str | None = None) -> None:
    """Write what came out."""
    recognizer = Recognizer.load(folder, threads=1)
    bundle, backend = recognizer.bundle, recognizer.backend
    if clips is not None:
        with np.load(clips) as given:
            answers = answer_clips(recognizer, given["mfcc"], given["crops"])
        np.savez(out, **answers)
        return
    golden, frames = bundle.golden(), bundle.spec.video.frames
    # The last window is filled up with the first crops again.
    count = -(-len(golden.crops) // frames)
    windows = np.resize(golden.crops, (count, frames, *golden.crops.shape[1:]))
    copy = Path(out).with_name(COPY_FILE)
    encode = open_onnx(copy) if bundle.target == "onnx" else open_openvino(bundle, frames)
    pieces = [encode(window) for window in windows]
    features, integers = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    plain = np.concatenate([backend.encode(window) for window in windows])
    logits = replay(backend, bundle.spec, bundle.no_face(), golden)
    same = np.array_equal(features, plain)
    np.savez(out, logits=logits, integers=integers, features=features, same=same)


if __name__ == "__main__":
    main(*sys.argv[1:])
