"""Environments with every package at one end of what pyproject.toml admits: named, and made."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from distributions import build
from steps import ProofError, run_step
from target_wheels import read_metadata

EXTRA = "openvino"
#: Those of a workstation.
EXTRAS = ("openvino", "report", "train", "export", "tensorboard", "ray")
#: Not installed for them: what is ours, and PyTorch, which is this environment's.
GIVEN = ("mer-edge", "mer-edge-weights", "torch")
#: The newest that runs here; the oldest is that of JetPack 6, and of pyproject.toml.
NEWEST_PYTHON = "3.13"
#: What the tests import on another Python than this, whose packages they can't take.
TEST_TOOLS = (
    "hypothesis",
    "librosa",
    "onnx",
    "prometheus-client",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "scikit-image",
)
Ranges = Mapping[str, SpecifierSet]


@dataclass(frozen=True)
class Environment:
    """All packages at one end of their ranges.

    Attributes:
        python: such as ``3.10``; None stands for this one.
        extras: those with which the wheel is installed.
    """

    newest: bool
    python: str | None = None
    extras: tuple[str, ...] = (EXTRA,)

    @property
    def name(self) -> str:
        end = "newest" if self.newest else "oldest"
        name = f"{end} of {'all' if self.extras == (EXTRA,) else 'the extras'}"
        return f"{name}, Python {self.python}" if self.python else name


#: Not every lower bound has a wheel for the newest Python, so there is no "oldest" of it.
ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(False, "3.10"),
        Environment(True, "3.10"),
        Environment(False),
        Environment(True),
        Environment(True, NEWEST_PYTHON),
        Environment(False, extras=EXTRAS),
        Environment(True, extras=EXTRAS),
    )
}


def read_ranges(wheel: Path, environment: Environment) -> Ranges:
    """What a wheel of ours admits of each package that an environment installs."""
    ranges: dict[str, SpecifierSet] = {}
    version = {"python_version": environment.python} if environment.python else {}
    for line in read_metadata(wheel).get_all("Requires-Dist") or ():
        wanted = Requirement(line)
        name = str(canonicalize_name(wanted.name))
        targets = [{"extra": extra} | version for extra in environment.extras]
        if name not in GIVEN and (
            wanted.marker is None or any(wanted.marker.evaluate(target) for target in targets)
        ):
            ranges[name] = wanted.specifier
    return ranges


def find_floor(package: str, admitted: SpecifierSet) -> str:
    """The lower bound of what is admitted.

    Raises:
        ProofError: there is none.
    """
    floors = [one.version for one in admitted if one.operator == ">="]
    if len(floors) != 1:
        raise ProofError(f"pyproject.toml gives {package} no lower bound: {admitted or 'any'}")
    return floors[0]


def constrain(environment: Environment, ranges: Ranges) -> list[str]:
    """pip's constraints for an environment: without any it takes the newest that is admitted."""
    if environment.newest:
        return []
    return [f"{name}=={find_floor(name, admitted)}" for name, admitted in ranges.items()]


def find_python(version: str | None) -> Path:
    """The Python of a version, such as ``3.10``; without one, this.

    Raises:
        ProofError: it isn't here.
    """
    found = shutil.which(f"python{version}") if version else sys.executable
    if found is None:
        raise ProofError(f"there is no Python {version} here")
    # What a version manager puts on the path may start another one, or nothing: pyenv can be told.
    variables = os.environ | ({"PYENV_VERSION": version} if version else {})
    query = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    said, path = run_step(f"Python {version}", [found, "-c", query], env=variables).split(
        maxsplit=1
    )
    if version not in (None, said):
        raise ProofError(f"{found} is Python {said}, not {version}")
    return Path(path.strip())


def install_extras(binaries: Path, ranges: Ranges, constraints: Path, folder: Path) -> None:
    """Install what the extras name, and the wheel of the weights, beside what is there."""
    pip = [str(binaries / "python"), "-m", "pip", "install"]
    wanted = [f"{name}{admitted}" for name, admitted in ranges.items()]
    install = [*pip, "--only-binary", ":all:", "--constraint", constraints, *wanted]
    run_step("installing the extras", install)
    run_step("the weights", [*pip, "--no-deps", build("mer-edge-weights", folder)])


def install_test_tools(binaries: Path, folder: Path) -> None:
    """Install what the tests import, beside the versions that are there.

    PyTorch isn't in it: tests that would export a model are skipped.
    """
    pip = [str(binaries / "python"), "-m", "pip"]
    there = folder / "installed.txt"
    lines = run_step("pip", [*pip, "freeze", "--exclude", "mer-edge"])
    there.write_text(lines, "utf-8")
    install = [*pip, "install", "--only-binary", ":all:", "--constraint", there, *TEST_TOOLS]
    run_step("installing the tests' tools", install)


def list_versions(binaries: Path, ranges: Ranges) -> dict[str, str]:
    """What is installed of the packages in question."""
    pip = [str(binaries / "python"), "-m", "pip", "list", "--format", "json"]
    found: dict[str, str] = {
        canonicalize_name(one["name"]): one["version"] for one in json.loads(run_step("pip", pip))
    }
    return {package: found[package] for package in ranges}
