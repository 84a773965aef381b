"""What holds the packages apart: import contracts, the lean install, what the wheel carries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from mer_runtime.spec import RAVDESS_LABELS

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SOURCES = {
    "mer": ROOT / "mer",
    "mer_calibration": ROOT / "calibration",
    "mer_export": ROOT / "export",
    "mer_runtime": ROOT / "runtime",
    "mer_bench": ROOT / "benchmarks",
}
SCRIPTS = sorted(
    entry.name
    for entry in metadata.distribution("mer-edge").entry_points
    if entry.group == "console_scripts"
)

#: Never on a device.
FORBIDDEN = (
    "torch",
    "librosa",
    "onnx",
    "onnxscript",
    "matplotlib",
    "safetensors",
    "scipy",
    "skimage",
)

LeanPython = Callable[..., "subprocess.CompletedProcess[str]"]


# --- import contracts ---------------------------------------------------------------------


def lint_imports(folder: Path, *sources: Path) -> subprocess.CompletedProcess[str]:
    """import-linter with ``folder``'s pyproject.toml on the packages under ``sources``."""
    return subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_contracts_hold() -> None:
    done = lint_imports(ROOT, *SOURCES.values())
    assert done.returncode == 0, done.stdout
    assert "Arrows go one way KEPT" in done.stdout
    assert "The runtime is lean KEPT" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("mer_runtime/spec.py", "import torch", "The runtime is lean"),
        ("mer_runtime/spec.py", "def lazy():\n    import librosa", "The runtime is lean"),
        ("mer_runtime/mfcc.py", "from mer.models import EfficientFace", "Arrows go one way"),
        ("mer/errors.py", "import mer_export", "Arrows go one way"),
        ("mer_calibration/errors.py", "import mer_export", "Arrows go one way"),
        ("mer_calibration/errors.py", "from mer.data.cache import Cache", "Arrows go one way"),
    ],
)
def test_planted_violation_is_caught(module: str, line: str, contract: str, tmp_path: Path) -> None:
    for package, source in SOURCES.items():
        shutil.copytree(source / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(tmp_path, tmp_path)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


# --- the lean install ---------------------------------------------------------------------


def test_lean_python_is_lean(lean_python: LeanPython) -> None:
    """The environment of the tests below has what a device has, and lacks the rest."""
    done = lean_python(
        "import importlib.util, json\n"
        "print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))",
        *FORBIDDEN,
        *("numpy", "cv2", "av", "click", "onnxruntime"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["numpy", "cv2", "av", "click", "onnxruntime"]


def test_every_module_of_the_runtime_imports(lean_python: LeanPython) -> None:
    done = lean_python(
        "import importlib, json, pkgutil, mer_runtime\n"
        "names = [m.name for m in pkgutil.walk_packages(mer_runtime.__path__, 'mer_runtime.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(json.dumps([mer_runtime.__file__, names]))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    file, names = json.loads(done.stdout)
    assert not Path(file).is_relative_to(ROOT)  # the wheel's, not the checkout's
    modules = (SOURCES["mer_runtime"] / "mer_runtime").rglob("*.py")
    assert len(names) + 1 == len(list(modules))


@pytest.mark.parametrize(
    "module", ["mer_runtime.engines.onnx", "mer_calibration", "mer_export.exporter"]
)
@pytest.mark.parametrize(("given", "seen"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_reports_to_nobody_unless_asked_to(
    module: str, given: str | None, seen: str
) -> None:
    """It decides when it is imported, whichever of our packages does that."""
    code = (
        "import importlib, os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "importlib.import_module(sys.argv[1])\n"
    )
    variables = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    if given:
        variables["ORT_DISABLE_TELEMETRY"] = given
    done = subprocess.run(
        [sys.executable, "-c", code, module],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [seen]


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Before it reports that it was imported, it leaves a number for the device in the home."""
    variables = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", "import mer_runtime, openvino"],
        env=variables | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_mer_run_teaches(lean_python: LeanPython) -> None:
    done = lean_python("from mer_runtime.cli import main; main()", "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert "BUNDLE" in done.stdout


def test_bundle_runs_on_the_sample_clip(
    lean_python: LeanPython, bundle: Path, sample_clip: Path
) -> None:
    done = lean_python(
        "from mer_runtime.cli import main; main()", bundle, sample_clip.resolve(), "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer["probabilities"]) == set(RAVDESS_LABELS)
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "command", ["mer.cli.train", "mer.cli.evaluate", "mer.cli.prepare", "mer_export.cli"]
)
def test_command_without_its_extra_says_what_to_install(
    command: str, lean_python: LeanPython
) -> None:
    """Its console script is installed on a device too."""
    done = lean_python(f"from {command} import main; main()", "some", "arguments")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "mer-edge[" in done.stderr


# --- the wheel ----------------------------------------------------------------------------


def test_wheel_carries_every_file_of_the_packages(wheel: Path) -> None:
    """hatchling obeys .gitignore: a pattern there could drop weights or data unseen."""
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    lacking = {
        path.relative_to(source).as_posix()
        for package, source in SOURCES.items()
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } - inside
    assert not lacking


@pytest.mark.parametrize("package", SOURCES)
def test_wheel_is_typed(package: str, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert f"{package}/py.typed" in archive.namelist()


def test_wheel_carries_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "mer/splits.json" in names
    assert "mer_export/samples/portrait.mp4" in names
    assert any(name.startswith("mer_runtime/bundles/ia-int8/") for name in names)
    assert not any(name.endswith(".safetensors") for name in names), "those are mer-edge-weights'"


def test_wheel_carries_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert len(info) == 1
    assert tops - info == set(SOURCES)


# --- commands -----------------------------------------------------------------------------


def test_scripts_are_those_of_the_wheel(wheel: Path) -> None:
    """So that the tests below miss none after a change of pyproject.toml."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        text = archive.read(name).decode()
    declared = [line.split(" = ")[0] for line in text.splitlines() if " = " in line]
    assert sorted(declared) == SCRIPTS, "reinstall: pip install --no-deps --editable ."


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str) -> None:
    done = subprocess.run(
        [BIN / script, "--help"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {script} ")
    assert "Example" in done.stdout
    assert "--help" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_option_is_a_usage_error(script: str) -> None:
    done = subprocess.run(
        [BIN / script, "--no-such-option"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
    assert "Traceback" not in done.stderr
