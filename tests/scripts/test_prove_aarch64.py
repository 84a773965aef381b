"""The parts of the aarch64 proof that need no emulator; the rest is ``make test-aarch64``."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]
ROOT = Path(__file__).resolve().parents[2]

CONSTRAINTS = """
# A comment.
everywhere==1.0
new==2.0; python_version >= "3.11"
old==1.5; python_version < "3.11"
desktop==3.0; platform_machine == "x86_64"
device==4.0; platform_machine == "aarch64"  # a remark
"""


@pytest.fixture
def write_wheel(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a wheel of metadata alone."""

    def write(name: str, version: str, *requires: str) -> Path:
        path = tmp_path / f"{name}-{version}-py3-none-any.whl"
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {one}" for one in requires]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
        return path

    return write


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        ("3.10", ["everywhere==1.0", "old==1.5", "device==4.0"]),
        ("3.11", ["everywhere==1.0", "new==2.0", "device==4.0"]),
        ("3.13", ["everywhere==1.0", "new==2.0", "device==4.0"]),
    ],
)
def test_constraints_are_the_targets(load_script: Load, python: str, expected: list[str]) -> None:
    assert load_script("target_wheels").select_constraints(CONSTRAINTS, python) == expected


def test_base_requirements_are_pinned_on_every_target(load_script: Load) -> None:
    """What a device installs doesn't float, whatever its Python."""
    wheels, proof = load_script("target_wheels"), load_script("prove_aarch64")
    text = (ROOT / "constraints.txt").read_text("utf-8")
    for python in proof.PYTHONS:
        pins = {line.split("==")[0] for line in wheels.select_constraints(text, python)}
        assert {"av", "click", "numpy", "onnxruntime", "opencv-python-headless"} <= pins


def test_complete_set_of_wheels(load_script: Load, write_wheel: Callable[..., Path]) -> None:
    wheels = [
        write_wheel("ours", "0.1", "Some.Engine>=1.19", 'tomli; python_version < "3.11"'),
        write_wheel("some_engine", "1.23.2", 'torch; extra == "train"'),
    ]
    list_unmet = load_script("target_wheels").list_unmet
    assert list_unmet(wheels, "3.11") == []
    assert list_unmet(wheels, "3.10") == ["ours needs tomli"]


def test_what_is_asked_of_pip_is_the_targets(
    load_script: Load, write_wheel: Callable[..., Path]
) -> None:
    """pip would read the markers for the Python that runs it."""
    wheel = write_wheel("ours", "0.1", "engine>=1.19", 'tomli>=2; python_version < "3.11"')
    wanted = load_script("target_wheels").list_requirements
    assert [str(one) for one in wanted(wheel, "3.10")] == ["engine>=1.19", "tomli>=2"]
    assert [str(one) for one in wanted(wheel, "3.13")] == ["engine>=1.19"]


def test_version_that_does_not_fit(load_script: Load, write_wheel: Callable[..., Path]) -> None:
    wheels = [write_wheel("ours", "0.1", "cv>=4.10,<5"), write_wheel("cv", "5.0")]
    (unmet,) = load_script("target_wheels").list_unmet(wheels, "3.11")
    assert unmet.startswith("ours needs cv")


def test_difference_of_answers(load_script: Load) -> None:
    difference = load_script("prove_aarch64").largest_difference
    assert difference({"sad": 0.7, "calm": 0.3}, {"sad": 0.6, "calm": 0.4}) == pytest.approx(0.1)
    with pytest.raises(load_script("steps").ProofError, match="labels"):
        difference({"sad": 1.0}, {"calm": 1.0})


def test_folder_appears_whole_or_not_at_all(load_script: Load, tmp_path: Path) -> None:
    new_folder = load_script("prove_aarch64").new_folder

    def fill_half() -> None:
        with new_folder(tmp_path / "kept") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_half()
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "kept") as folder:
        (folder / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "whole"]


def test_without_the_emulator_it_says_what_to_install(tmp_path: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):  # as on any Debian machine
        (tmp_path / tool).symlink_to("/bin/true")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "prove_aarch64.py"],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: this needs QEMU's emulator: sudo apt install qemu-user-static"
    ]


def test_failed_step_gives_its_last_line(load_script: Load) -> None:
    proof = load_script("steps")
    command = [sys.executable, "-c", "import sys; sys.exit('first\\nno such wheel')"]
    with pytest.raises(proof.ProofError, match=r"installing: .* ended with 1: no such wheel"):
        proof.run_step("installing", command)
    with pytest.raises(proof.ProofError, match="timed out"):
        proof.run_step(
            "waiting", [sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.01
        )
    assert proof.run_step("asking", [sys.executable, "-c", "print(7)"]) == "7\n"


def test_package_from_elsewhere_is_noticed(load_script: Load, tmp_path: Path) -> None:
    """Here ``mer_runtime`` is the checkout's, and not below ``tmp_path``."""
    proof = load_script("prove_wheel")
    with pytest.raises(load_script("steps").ProofError, match="not from the wheel"):
        proof.check_origin(Path(sys.executable).parent, "mer_runtime", tmp_path)
