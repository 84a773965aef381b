"""Fixtures of the exporter's tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mer import Checkpoint
from mer.models import build_model
from mer_export.network.deploy import ReferenceNet
from mer_export.network.graphs import Graphs, export_graphs


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """Networks this small are slowed down by threads."""
    torch.set_num_threads(1)


Answer = Callable[[Checkpoint, NDArray[np.float32], NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture(scope="session")
def answer() -> Answer:
    """A function from a checkpoint and a window's raw inputs to PyTorch's logits (classes,)."""

    @torch.inference_mode()
    def ask(
        checkpoint: Checkpoint, mfcc: NDArray[np.float32], faces: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        net = ReferenceNet(checkpoint).eval()
        return net(torch.from_numpy(mfcc)[None], torch.from_numpy(faces)[None])[0].numpy()

    return ask


@pytest.fixture(scope="session", params=["ia", "it", "lt"])
def exported(
    request: pytest.FixtureRequest, small_model: Any, graphs_once: None
) -> tuple[Checkpoint, Graphs]:
    """A checkpoint of each fusion, with the encoder of ``small_model``, and its float graphs."""
    model, spec = small_model
    if request.param != "ia":
        spec = dataclasses.replace(spec, fusion=request.param, num_heads=4)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            other = build_model(spec).eval()
        shared = {n: v for n, v in model.state_dict().items() if n in other.state_dict()}
        other.load_state_dict(shared, strict=False)
        model = other
    checkpoint = Checkpoint(model, spec)
    return checkpoint, export_graphs(checkpoint)
