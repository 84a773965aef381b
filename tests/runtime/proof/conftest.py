"""What tests of proofs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mer_runtime.bundle import Bundle, load_bundle
from mer_runtime.proof.self_test import PASSES_FOLDER, PROVE_VARIABLE
from mer_runtime.store import CACHE_VARIABLE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where passes are kept, in a cache of the test's own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(PROVE_VARIABLE, raising=False)
    return tmp_path / "cache" / PASSES_FOLDER


@pytest.fixture
def tiny(write_tiny_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(write_tiny_bundle())
