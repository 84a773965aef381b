"""What the bundles are measured against: the untouched network and what stock tools make of it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
import torch

from goals import COMPACT
from mer import Checkpoint, load_checkpoint, shipped_checkpoint
from mer_export import ExportOptions, export_bundle
from mer_export.network.deploy import OPSET, ReferenceNet
from mer_export.proof.golden import golden_inputs
from mer_runtime.bundle import Precision, Target
from mer_runtime.files import hash_file
from mer_runtime.inputs.mfcc import compute_mfcc

HERE = Path(__file__).resolve().parent
#: The bundles that are made, by name.
BUNDLES: dict[str, tuple[Target, Precision]] = {
    "onnx-fp32": ("onnx", "fp32"),
    "onnx-int8": ("onnx", "int8"),
    "openvino-fp32": ("openvino", "fp32"),
    "openvino-int8": ("openvino", "int8"),
}
#: The small model, which is the one that ships, whatever else is timed.
COMPACT_MODEL = "ia-compact"
COMPACT_BUNDLES: dict[str, tuple[Target, Precision]] = {
    f"{COMPACT}{name}": BUNDLES[name] for name in ("onnx-int8", "openvino-int8")
}


def prepare_rivals(
    checkpoint: Path, folder: Path, *, ranges: Path | None = None, nncf: bool = True
) -> None:
    """Put everything that is timed into ``folder``: our bundles, and what they compete with.

    What stock tools need minutes for is kept there for the next run, under the network's hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loaded, compact = load_checkpoint(checkpoint), shipped_checkpoint(COMPACT_MODEL)
    for name, (target, precision) in {**BUNDLES, **COMPACT_BUNDLES}.items():
        click.echo(f"exporting {name}", err=True)
        ours = name in BUNDLES
        given = ranges if ours and precision == "int8" else None
        export_bundle(
            checkpoint if ours else compact,
            folder / name,
            ExportOptions(target=target, precision=precision, ranges=given, timing=False),
        )
    write_windows(loaded, folder / "windows.npz")
    write_windows(load_checkpoint(compact), folder / f"{COMPACT}windows.npz")
    digest = hash_file(checkpoint)
    key = folder / "untouched.sha256"
    if not key.is_file() or key.read_text() != digest:
        click.echo("exporting the untouched network", err=True)
        for stale in ("untouched-static.onnx", "untouched-nncf.xml"):
            (folder / stale).unlink(missing_ok=True)
        export_untouched(loaded, folder / "untouched.onnx")
        key.write_text(digest)
    if not (folder / "untouched-static.onnx").is_file():
        click.echo("quantising it with ONNX Runtime's tool", err=True)
        quantise_static(folder)
    if nncf and not (folder / "untouched-nncf.xml").is_file():
        click.echo("quantising it with NNCF, in an environment of its own", err=True)
        subprocess.run([HERE / "nncf_environment.sh", folder], check=True)


def write_windows(checkpoint: Checkpoint, path: Path) -> None:
    """The golden inputs (n, n_mfcc, T) and (n, 15, S, S, 3), and the sample clip's voice."""
    from mer_export.proof.golden import sample_clip
    from mer_runtime.inputs.media import read_window

    spec = checkpoint.spec
    golden = golden_inputs(spec)
    cases = [golden.case(i) for i in range(len(golden.cases))]
    mfcc = [np.zeros(spec.audio.shape, np.float32) if m is None else m for m, _ in cases]
    faces = [np.zeros(spec.video.shape, np.uint8) if f is None else f for _, f in cases]
    voice = read_window(sample_clip(), spec).waveform
    assert voice is not None
    assert compute_mfcc(voice, spec.audio).shape == spec.audio.shape
    np.savez(path, mfcc=np.stack(mfcc), faces=np.stack(faces), voice=voice)


def export_untouched(checkpoint: Checkpoint, path: Path) -> None:
    """The network as PyTorch's exporter gives it: one graph, one window."""
    spec = checkpoint.spec
    inputs = {
        "mfcc": torch.zeros(1, *spec.audio.shape),
        "faces": torch.zeros(1, *spec.video.shape, dtype=torch.uint8),
    }
    with contextlib.redirect_stdout(None):
        program = torch.onnx.export(
            ReferenceNet(checkpoint).eval(),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    onnx.save(program.model_proto, path)


def quantise_static(folder: Path) -> None:
    """``untouched.onnx`` by ONNX Runtime's static quantiser, with its default settings."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    windows = np.load(folder / "windows.npz")

    class Windows(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(zip(windows["mfcc"], windows["faces"], strict=True))

        def get_next(self) -> dict[str, object] | None:
            found = next(self.left, None)
            return None if found is None else {"mfcc": found[0][None], "faces": found[1][None]}

    with tempfile.TemporaryDirectory() as name:
        # Symbolic shapes crash on what PyTorch exports now.
        prepared = Path(name) / "prepared.onnx"
        quant_pre_process(folder / "untouched.onnx", prepared, skip_symbolic_shape=True)
        quantize_static(prepared, folder / "untouched-static.onnx", Windows())
