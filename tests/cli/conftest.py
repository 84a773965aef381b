"""Fixtures of the commands' tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mer_runtime.cluster import LOCAL, connected


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


@pytest.fixture(scope="session")
def cluster(without_grammar: Path) -> Iterator[str]:
    """The address of a cluster of this machine, started as by ``--ray local``."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(without_grammar), prepend=os.pathsep)
        patch.setitem(sys.modules, "rfc3987_syntax", None)
        with connected(LOCAL, 2):
            yield ray.get_runtime_context().gcs_address
