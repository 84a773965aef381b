"""What a user writes: names of the packages themselves, which all are there."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("mer", "mer_export", "mer_runtime", "mer_runtime.stream", "mer_bench")
OURS = ("mer", "mer_calibration", "mer_export", "mer_runtime", "mer_bench")
#: Contributors import from inside, users don't.
DOCS = [
    ROOT / "README.md",
    *(f for f in (ROOT / "docs").rglob("*.md") if "contributing" not in f.parts),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("package", PUBLIC)
def test_every_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = module.nonsense


def find_imports(code: str) -> list[tuple[str, str]]:
    """(module, name) of what code imports of our packages; the name is empty in ``import x``."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] in OURS]


def check_imports(code: str) -> int:
    found = find_imports(code)
    for module, name in found:
        assert module in PUBLIC, f"{module} is no place for users to import from"
        assert not name or name in importlib.import_module(module).__all__, (module, name)
    return len(found)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_import_public_names(file: Path) -> None:
    check_imports(file.read_text("utf-8"))


def test_documents_import_public_names() -> None:
    blocks = [
        block
        for file in DOCS
        for block in re.findall(r"^```python\n(.*?)^```", file.read_text("utf-8"), re.M | re.S)
    ]
    assert sum(map(check_imports, blocks)) >= 4


def test_deep_import_is_seen() -> None:
    with pytest.raises(AssertionError, match="no place for users"):
        check_imports("from mer_runtime.inputs.media import MEDIA_SUFFIXES")


def find_loaded(module: str, *sought: str) -> list[str]:
    """Which of the modules sought a fresh process has loaded once it has imported one."""
    code = (
        "import importlib, sys; importlib.import_module(sys.argv[1]); "
        "print(*set(sys.argv[2:]) & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, module, *sought]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("package", PUBLIC)
def test_import_is_lean(package: str) -> None:
    """Engines, PyTorch and the live sources wait until they are asked for."""
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "mer_runtime.live")
    assert not find_loaded(package, *heavy)


@pytest.mark.parametrize("module", ["mer_runtime.stream.event", "mer_runtime.cli"])
def test_a_clips_answer_loads_no_stream(module: str) -> None:
    event = "mer_runtime.stream.event"
    sought = (event, "mer_runtime.stream.engine", "mer_runtime.timeline")
    assert find_loaded(module, *sought) == [event]
