"""A newcomer feeds a bundle's graphs to the engines themselves, and looks into them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mer_export import ExportOptions, export_bundle
from mer_export.cli import main
from mer_runtime import Recognizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "other-runtimes.md"
SCRIPTS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt_rtx"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.parametrize(("target", "script"), list(zip(ENGINES, SCRIPTS, strict=True)))
def test_ten_lines_without_our_runtime(
    folder: Path, graphs_once: None, target: Any, script: str
) -> None:
    pytest.importorskip(ENGINES[target])
    assert len(script.splitlines()) <= 10
    cpu = "x86" if target == "onnx" else None
    out = folder / f"ia-{target}-int8"
    export_bundle(out=out, options=ExportOptions(target=target, cpu=cpu, timing=False))
    said = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=folder, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    if target == "tensorrt":
        assert (folder / "encoder.engine").stat().st_size > 1_000_000
        return
    recognizer = Recognizer.load(out)
    logits = recognizer.infer(*recognizer.bundle.golden().case(0))
    assert said.stdout.strip() == recognizer.spec.labels[int(logits.argmax())]


def test_look_into_the_bundle_that_ships() -> None:
    said = CliRunner().invoke(main, ["--inspect", "ia-int8"])
    assert said.exit_code == 0
    for words in ("dialect x86", "million MACs", "network.classifier_1.0", "fewer than 16"):
        assert words in said.stdout
