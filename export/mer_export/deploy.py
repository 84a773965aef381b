"""The deployment graph: raw inputs in, standardisation inside, the encoder made for engines."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from mer import Checkpoint
from mer.models import Standardiser
from mer_export.encoder import DeploymentEncoder
from mer_export.errors import ExportError

#: TensorRT 10.3 (JetPack 6) and OpenVINO read it, and it has LayerNormalization.
OPSET = 18


class ReferenceNet(nn.Module):
    """The trained network as it is, behind its spec's standardisation: what gates compare with.

    ``forward(mfcc: (B, n_mfcc, T) float32, faces: (B, 15, S, S, 3) uint8)`` gives logits
    (B, classes) float32.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.standardiser = Standardiser(checkpoint.spec)
        self.network = checkpoint.model

    def forward(self, mfcc: Tensor, faces: Tensor) -> Tensor:
        logits: Tensor = self.network(*self.standardiser(mfcc, faces))
        return logits


class DeploymentNet(ReferenceNet):
    """The same function with the encoder rewritten (``mer_export.encoder``)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.encoder = DeploymentEncoder(checkpoint.model.visual_model)

    def forward(self, mfcc: Tensor, faces: Tensor) -> Tensor:
        audio, video = self.standardiser(mfcc, faces)
        frames = self.encoder(video.flatten(0, 1)).view(*video.shape[:2], -1)
        return self.network.head(audio, frames)


def export_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write the deployment graph with static batch 1 to ``path``.

    Inputs ``mfcc`` (1, n_mfcc, T) float32 and ``faces`` (1, 15, S, S, 3) uint8, output
    ``logits`` (1, classes) float32.

    Raises:
        ExportError: PyTorch can't export the network.
    """
    spec = checkpoint.spec
    net = DeploymentNet(checkpoint).eval()
    inputs = (
        torch.zeros(1, *spec.audio.shape),
        torch.zeros(1, *spec.video.shape, dtype=torch.uint8),
    )
    try:
        with _quiet():
            program = torch.onnx.export(
                net,
                inputs,
                input_names=["mfcc", "faces"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"PyTorch can't export the network: {error}") from error
    if program is None:
        raise ExportError("PyTorch exported nothing")
    onnx.save(_strip(program.model_proto), path)


def _strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what names the exporting machine: source lines and paths, kept as debugging notes."""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    model.graph.name = "mer-edge"
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            node.doc_string = ""
            del node.metadata_props[:]
    values = (model.graph.value_info, model.graph.input, model.graph.output)
    for value in (v for group in values for v in group):
        value.doc_string = ""
        del value.metadata_props[:]
    onnx.checker.check_model(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress notes off the terminal; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
