"""What tests of engines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mer_runtime.store import CACHE_VARIABLE


@pytest.fixture(scope="session")
def rtx() -> Any:
    """TensorRT-RTX, which builds engines without a GPU."""
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What other tests prepared isn't taken: it would hide what is in a bundle."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"
