"""Everything that ``bench.py`` times, a process for each: how it is loaded, what it then does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from goals import COMPACT
from mer_bench.worker import Loaded, serve, time_second

#: Of a loaded contender: the name of a task to what does it once.
Tasks = Mapping[str, Callable[[], Any]]


def load_contender(name: str, folder: Path, checkpoint: Path, clip: Path, threads: int) -> Tasks:
    """Load one; ``window`` gives logits (classes,), the other tasks nothing of note."""
    prefix = COMPACT if name.startswith(COMPACT) else ""  # its crops are smaller
    windows = np.load(folder / f"{prefix}windows.npz")
    mfcc, faces, voice = windows["mfcc"][0], windows["faces"][0], windows["voice"]
    if name.startswith("pytorch"):
        compiled = name == "pytorch-compiled"
        return _load_pytorch(checkpoint, mfcc, faces, threads, compiled=compiled)
    if name.startswith("mfcc-"):
        return _load_mfcc(name, folder, voice)
    if name.startswith("untouched-onnx"):
        graph = folder / ("untouched-static.onnx" if name.endswith("static") else "untouched.onnx")
        return _load_onnx(graph, mfcc, faces, threads)
    if name.startswith("untouched-openvino"):
        nncf = name.endswith("nncf")
        graph = folder / ("untouched-nncf.xml" if nncf else "untouched.onnx")
        return _load_openvino(graph, mfcc, faces, threads, "bf16" if "bf16" in name else "f32")
    if name == "openvino-bf16":
        return _load_openvino_pair(folder / "openvino-fp32", mfcc, faces, threads)
    return _load_bundle(folder / name, mfcc, faces, clip, threads)


def _load_pytorch(
    checkpoint: Path,
    mfcc: NDArray[np.float32],
    faces: NDArray[np.uint8],
    threads: int,
    *,
    compiled: bool,
) -> Tasks:
    import torch

    from mer import load_checkpoint
    from mer_export.network.deploy import ReferenceNet

    torch.set_num_threads(threads)
    net: Any = ReferenceNet(load_checkpoint(checkpoint)).eval()
    if compiled:  # needs a C++ compiler, and a minute
        net = torch.compile(net)
    inputs = torch.from_numpy(mfcc)[None], torch.from_numpy(faces)[None]

    def window() -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(net(*inputs)[0].numpy())

    return {"window": window}


def _load_mfcc(name: str, folder: Path, voice: NDArray[np.float32]) -> Tasks:
    from mer_runtime.bundle import load_bundle
    from mer_runtime.inputs.mfcc import compute_mfcc

    spec = load_bundle(folder / "onnx-int8").spec.audio
    if name == "mfcc-ours":
        return {"mfcc": lambda: compute_mfcc(voice, spec)}
    import librosa

    def mfcc() -> Any:
        return librosa.feature.mfcc(
            y=voice,
            sr=spec.sample_rate,
            n_mfcc=spec.n_mfcc,
            n_fft=spec.n_fft,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
        )

    return {"mfcc": mfcc}


def _load_onnx(
    graph: Path, mfcc: NDArray[np.float32], faces: NDArray[np.uint8], threads: int
) -> Tasks:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {"mfcc": mfcc[None], "faces": faces[None]}
    return {"window": lambda: session.run(None, feed)[0][0]}


def _load_openvino(
    graph: Path, mfcc: NDArray[np.float32], faces: NDArray[np.uint8], threads: int, floats: str
) -> Tasks:
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    request = core.compile_model(model, "CPU", _options(threads, floats)).create_infer_request()

    def window() -> NDArray[np.float32]:
        request.infer({"mfcc": mfcc[None], "faces": faces[None]})
        return np.array(request.get_output_tensor(0).data[0])

    return {"window": window}


def _load_openvino_pair(
    bundle: Path, mfcc: NDArray[np.float32], faces: NDArray[np.uint8], threads: int
) -> Tasks:
    """A float bundle's graphs in bfloat16, which the runtime never takes unasked."""
    import openvino

    from mer_runtime.files import read_graph

    core = openvino.Core()
    encoder, head = (
        core.read_model(*(read_graph(bundle / f"{name}.{part}.gz") for part in ("xml", "bin")))
        for name in ("encoder", "head")
    )
    encoder.reshape({"faces": list(faces.shape)})
    encode, classify = (
        core.compile_model(model, "CPU", _options(threads, "bf16")).create_infer_request()
        for model in (encoder, head)
    )

    def window() -> NDArray[np.float32]:
        encode.infer({"faces": faces})
        classify.infer({"mfcc": mfcc[None], "features": encode.get_output_tensor(0).data[None]})
        return np.array(classify.get_output_tensor(0).data[0])

    return {"window": window}


def _options(threads: int, floats: str) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": floats,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }


def _load_bundle(
    bundle: Path, mfcc: NDArray[np.float32], faces: NDArray[np.uint8], clip: Path, threads: int
) -> Tasks:
    from mer_runtime import Recognizer

    recognizer = Recognizer.load(bundle, threads=threads)
    backend = recognizer.backend
    features = backend.encode(faces)
    newest = np.ascontiguousarray(faces[-1:])

    def hop() -> NDArray[np.float32]:
        features[:-1] = features[1:]
        features[-1:] = backend.encode(newest)
        return backend.classify(mfcc, features)

    return {
        "window": lambda: recognizer.infer(mfcc, faces),
        "hop": hop,
        "clip": lambda: recognizer.predict(clip),
    }


def main() -> None:
    """Serve one (see ``mer_bench.worker``): its logits, where it has some, and ``time``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    for option in ("--folder", "--checkpoint", "--clip"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()

    def load() -> Loaded:
        tasks = load_contender(
            options.name, options.folder, options.checkpoint, options.clip, options.threads
        )
        logits = tasks["window"]().tolist() if "window" in tasks else None
        return {"logits": logits}, {"time": lambda task: time_second(tasks[task])}

    serve(load)


if __name__ == "__main__":
    main()
