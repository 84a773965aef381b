"""Fusions and face encoders: a row for each.

``docs/contributing/fusion-or-encoder.md`` tells how to add one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from mer.models.compact import CompactFace
from mer.models.efficientface import EfficientFace, NarrowEfficientFace
from mer.models.fusion import (
    GatedAttention,
    IntermediateAttention,
    IntermediateTransformer,
    LateTransformer,
)
from mer.models.network import MultimodalNet
from mer_runtime.errors import SpecError
from mer_runtime.spec import Spec

Row = TypeVar("Row")

#: By what ``mer-train --fusion`` and a spec call them.
FUSIONS: dict[str, type[MultimodalNet]] = {
    "ia": IntermediateAttention,
    "it": IntermediateTransformer,
    "lt": LateTransformer,
    "gated": GatedAttention,
}

#: By what ``mer-train --face-encoder`` and a spec call them. Made without arguments, each has
#: ``features``, standardised crops (N, 3, S, S) to (N, F), and ``feature_width``, which is F.
ENCODERS: dict[str, type[nn.Module]] = {
    "efficientface": EfficientFace,
    "efficientface-narrow": NarrowEfficientFace,
    "compact": CompactFace,
}


def build_model(spec: Spec) -> MultimodalNet:
    """A freshly initialised network for ``spec``.

    Raises:
        SpecError: there is no such fusion or encoder.
    """
    fusion = _find(FUSIONS, "fusion", spec.fusion)
    encoder = _find(ENCODERS, "encoder", spec.encoder)
    model = fusion(
        encoder,
        num_classes=len(spec.labels),
        n_mfcc=spec.audio.n_mfcc,
        num_heads=spec.num_heads,
    )
    model.fusion = spec.fusion
    return model


def build_encoder(name: str) -> nn.Module:
    """A freshly initialised face encoder.

    Raises:
        SpecError: there is none of that name.
    """
    return _find(ENCODERS, "encoder", name)()


def _find(table: Mapping[str, Row], kind: str, name: str) -> Row:
    if name not in table:
        if ":" in name:
            raise SpecError(
                f"its {kind} is {name}, which is none of mer-edge's, and checkpoints hold no "
                f"code: name its file with --model {name}, or call mer.add_model first"
            )
        raise SpecError(f"there is no {kind} {name}: take {', '.join(table)}")
    return table[name]
