"""The deployment graphs, encoder and head: raw inputs in, standardisation inside."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from mer import Checkpoint
from mer.models import Standardiser
from mer_export.errors import ExportError
from mer_export.network.compact import DeploymentCompact
from mer_export.network.encoder import DeploymentEncoder
from mer_export.network.head import DeploymentHead
from mer_export.network.naming import name_after_modules
from mer_runtime.spec import VideoSpec

#: TensorRT 10.3 (JetPack 6) and OpenVINO read it, and it has LayerNormalization.
OPSET = 18
#: Elements of constants that are computed beforehand: all that there are.
MOST_FOLDED = 1 << 24
#: Largest batch of crops that the encoder's graph is exported for.
MOST_CROPS = 256


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


#: Encoders that are rewritten for engines: by name, what makes of the encoder and the spec's
#: ``video`` a module from raw crops (N, S, S, 3), float32 in 0 to 255, to frame features (N, F).
#: Any other is exported as it is.
REWRITTEN: dict[str, Callable[[Any, VideoSpec], nn.Module]] = {
    "efficientface": DeploymentEncoder,
    "efficientface-narrow": DeploymentEncoder,
    "compact": DeploymentCompact,
}


class PlainEncoder(nn.Module):
    """An encoder as it is behind its spec's standardisation; in and out as in ``REWRITTEN``."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.standardiser = Standardiser(checkpoint.spec)
        self.branch = checkpoint.model.visual_model

    def forward(self, crops: Tensor) -> Tensor:
        return self.branch.features(self.standardiser.video(crops))


class EncoderGraph(nn.Module):
    """Crops (N, S, S, 3) uint8 to frame features (N, F) float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        spec = checkpoint.spec
        rewrite = REWRITTEN.get(spec.encoder)
        self.encoder = (
            rewrite(checkpoint.model.visual_model, spec.video)
            if rewrite
            else PlainEncoder(checkpoint)
        )

    def forward(self, faces: Tensor) -> Tensor:
        features: Tensor = self.encoder(faces.float())
        return features


def export_encoder(checkpoint: Checkpoint) -> onnx.ModelProto:
    """The graph from ``faces`` (N, S, S, 3) uint8 to ``features`` (N, F) float32; N is free.

    Raises:
        ExportError: PyTorch can't export the network.
    """
    video = checkpoint.spec.video
    crops = torch.zeros(video.frames, *video.shape[1:], dtype=torch.uint8)
    batch = {"faces": {0: torch.export.Dim("crops", min=1, max=MOST_CROPS)}}
    net = EncoderGraph(checkpoint)
    return _export(net, {"faces": crops}, "features", dynamic_shapes=batch)


def export_head(checkpoint: Checkpoint) -> onnx.ModelProto:
    """The graph from ``mfcc`` (1, n_mfcc, T) and ``features`` (1, frames, F), both float32,
    to ``logits`` (1, classes).

    Raises:
        ExportError: PyTorch can't export the network.
    """
    spec, width = checkpoint.spec, checkpoint.model.visual_model.feature_width
    inputs = {
        "mfcc": torch.zeros(1, *spec.audio.shape),
        "features": torch.zeros(1, spec.video.frames, width),
    }
    return _export(DeploymentHead(checkpoint), inputs, "logits")


def _export(
    net: nn.Module, inputs: dict[str, Tensor], output: str, **options: Any
) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(
                net.eval(),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=[output],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                **options,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"PyTorch can't export the network: {error}") from error
    if program is None:
        raise ExportError("PyTorch exported nothing")
    model = optimizer.optimize(
        program.model_proto, input_size_limit=MOST_FOLDED, output_size_limit=MOST_FOLDED
    )
    parameters = {name: value.numpy() for name, value in net.state_dict().items()}
    name_after_modules(model, parameters)
    return _strip(model)


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
