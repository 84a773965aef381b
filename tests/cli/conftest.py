"""Fixtures of the commands' tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """Networks this small are slowed down by threads."""
    with suppress(ImportError):  # scripts/prove_versions.py has Pythons without
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Callable[..., Path]) -> Path:
    """A small prepared cache of a test module's own; see ``write_learnable_cache``."""
    return write_cache(tmp_path_factory.mktemp("data") / "cache")
