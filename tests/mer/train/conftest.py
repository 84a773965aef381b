"""A small cache to train on, and an encoder that tells its colours apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mer.models import EfficientFace

Write = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the networks are tiny


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Write) -> Path:
    """Two actors train; features of a frozen encoder gather here from test to test."""
    folder = tmp_path_factory.mktemp("data") / "cache"
    return write_cache(folder, without_face=["01-01-03-01-01-01-01"])


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder that has seen a few colours, so that its features tell colours apart."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        encoder = EfficientFace()
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0  # keep the last batch's statistics
        encoder(torch.rand(64, 3, 1, 1) + torch.rand(64, 3, 32, 32) / 4)
        save_file(encoder.state_dict(), path)
    return path
