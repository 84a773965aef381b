"""What is published holds what it should: built here, and looked into."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script(load_script: Load) -> ModuleType:
    return load_script("distributions")


@pytest.fixture(scope="module")
def wheels(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    return {name: script.build(name, folder) for name in script.DISTRIBUTIONS}


def test_wheels(script: ModuleType, wheels: Mapping[str, Path]) -> None:
    sizes = {name: script.check_wheel(name, wheel) for name, wheel in wheels.items()}
    # What a device installs of ours is less than what it would with the weights.
    assert sizes["mer-edge"] < sizes["mer-edge-weights"]


@pytest.mark.parametrize("name", ["mer-edge", "mer-edge-weights"])
def test_a_wheel_can_be_built_from_the_sdist(
    script: ModuleType, wheels: Mapping[str, Path], tmp_path: Path, name: str
) -> None:
    sdist = script.build(name, tmp_path, "sdist")
    script.check_sdist(name, sdist)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    project = tmp_path / sdist.name.removesuffix(".tar.gz")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=project,
        check=True,
        capture_output=True,
    )
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as one, zipfile.ZipFile(wheels[name]) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("conftest.py", r"has the top-level names conftest.py, mer, .*, not mer, "),
        ("mer_runtime/ia.safetensors", "holds mer_runtime/ia.safetensors"),
        ("-mer_runtime/py.typed", "lacks mer_runtime/py.typed"),
        ("-mer_edge-0.1.0.dist-info/licenses/LICENSE-WEIGHTS", "has the licences LICENSE, runtime"),
        ("mer/large.bin", "installs .* MB, more than 20"),
    ],
)
def test_faults_are_found(
    script: ModuleType, wheels: Mapping[str, Path], tmp_path: Path, change: str, complaint: str
) -> None:
    faulty = tmp_path / wheels["mer-edge"].name
    with zipfile.ZipFile(wheels["mer-edge"]) as whole, zipfile.ZipFile(faulty, "w") as other:
        for file in whole.namelist():
            if file != change.removeprefix("-"):
                other.writestr(file, whole.read(file))
        if not change.startswith("-"):
            other.writestr(change, bytes(script.MOST_BASE if "large" in change else 1))
    with pytest.raises(script.ProofError, match=complaint):
        script.check_wheel("mer-edge", faulty)


def test_the_licence_of_the_weights_is_one() -> None:
    assert (ROOT / "LICENSE-WEIGHTS").read_text() == (ROOT / "weights" / "LICENSE").read_text()


def test_export_says_what_is_missing_and_works_with_it(
    load_script: Load,
    wheels: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an environment of the wheel alone, with this one's PyTorch behind it."""
    monkeypatch.delenv("PYTHONPATH", raising=False)  # the checkout's packages
    proof = load_script("prove_wheel")
    venv.create(tmp_path / "environment", with_pip=True)
    binaries = tmp_path / "environment" / "bin"
    pip = [binaries / "python", "-m", "pip", "install", "--no-index", "--no-deps"]
    load_script("steps").run_step("installing", [*pip, wheels["mer-edge"]])
    proof.add_test_tools(binaries)
    proof.check_origin(binaries, "mer", tmp_path)
    proof.check_weights(binaries, wheels["mer-edge-weights"], tmp_path)
    assert shutil.which("mer-export", path=binaries)
