"""What is published: two wheels and their source distributions, built and looked into.

``mer-edge`` has all code and the bundle that ships. ``mer-edge-weights`` has the checkpoints, which
training and export need and a device can't use: they are three quarters of everything.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

from mer_runtime.bundle import SHIPPED_CHECKPOINTS
from steps import ROOT, ProofError, run_step

#: Bytes of ours that a base install may put on a device.
MOST_BASE = 20_000_000
Kind = Literal["wheel", "sdist"]


@dataclass(frozen=True)
class Distribution:
    """One of ours.

    Attributes:
        project: the folder of its pyproject.toml.
        packages: its import names.
        typed: those that must say that they have types (``py.typed``).
        licences: files of ``.dist-info/licenses``.
        wanted: patterns of files that a wheel must have besides.
        unwanted: patterns of files that nothing of it may have.
    """

    project: Path
    packages: frozenset[str]
    typed: frozenset[str]
    licences: frozenset[str]
    wanted: Sequence[str]
    unwanted: Sequence[str]


_PACKAGES = frozenset({"mer", "mer_bench", "mer_calibration", "mer_export", "mer_runtime"})
_YUNET = "mer_runtime/inputs/yunet"
DISTRIBUTIONS: Mapping[str, Distribution] = {
    "mer-edge": Distribution(
        ROOT,
        _PACKAGES,
        _PACKAGES,
        frozenset({"LICENSE", "LICENSE-WEIGHTS", f"runtime/{_YUNET}/LICENSE"}),
        (
            f"{_YUNET}/*.onnx",
            f"{_YUNET}/LICENSE",
            "mer_runtime/bundles/ia-int8/manifest.json",
            "mer_runtime/bundles/ia-compact-int8/manifest.json",
        ),
        ("*.safetensors", "*.pth", "*.pyc", "*test_*", "*conftest.py"),
    ),
    "mer-edge-weights": Distribution(
        ROOT / "weights",
        frozenset({"mer_weights"}),
        frozenset(),
        frozenset({"LICENSE"}),
        tuple(
            f"mer_weights/{file}"
            for name in SHIPPED_CHECKPOINTS
            for file in ("MODEL_CARD.md", f"{name}.safetensors", f"{name}.ranges.json")
        ),
        ("*.pyc",),
    ),
}


def build(name: str, folder: Path, kind: Kind = "wheel") -> Path:
    """Build a distribution of this working tree, without isolation and without network.

    Raises:
        ProofError: it can't be built.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder]
    run_step(f"building {name}", command, cwd=DISTRIBUTIONS[name].project)
    pattern = f"{name.replace('-', '_')}-[0-9]*.{'whl' if kind == 'wheel' else 'tar.gz'}"
    (built,) = folder.glob(pattern)
    return built


def check_wheel(name: str, wheel: Path) -> int:
    """Look into a wheel; gives the bytes that it installs.

    Raises:
        ProofError: it has a top-level name, a file or a licence too many or too few, or the
            base install is larger than ``MOST_BASE``.
    """
    ours = DISTRIBUTIONS[name]
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    tops = {PurePosixPath(file).parts[0] for file in sizes}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    _compare(wheel, "top-level names", tops - {info}, ours.packages)
    head = f"{info}/licenses/"
    licences = {file.removeprefix(head) for file in sizes if file.startswith(head)}
    _compare(wheel, "licences", licences, ours.licences)
    _check_files(wheel, sizes, [*ours.wanted, *(f"{p}/py.typed" for p in ours.typed)], ours)
    size = sum(sizes.values())
    if name == "mer-edge" and size > MOST_BASE:
        raise ProofError(
            f"{wheel.name} installs {size / 1e6:.1f} MB, more than {MOST_BASE / 1e6:.0f}"
        )
    return size


def check_sdist(name: str, sdist: Path) -> None:
    """Look into a source distribution: what a wheel is built from, and nothing that isn't ours.

    Raises:
        ProofError: something is missing or too much.
    """
    ours = DISTRIBUTIONS[name]
    with tarfile.open(sdist) as archive:
        files = [PurePosixPath(member.name) for member in archive.getmembers()]
    below = ["/".join(file.parts[1:]) for file in files]
    wanted = ["pyproject.toml", "README.md", *ours.licences]
    _check_files(sdist, below, [*wanted, *(f"*{pattern}" for pattern in ours.wanted)], ours)


def _check_files(
    built: Path, files: Iterable[str], wanted: Iterable[str], ours: Distribution
) -> None:
    files = list(files)
    missing = [one for one in wanted if not any(fnmatch(file, one) for file in files)]
    if missing:
        raise ProofError(f"{built.name} lacks {', '.join(missing)}")
    extra = [file for file in files if any(fnmatch(file, one) for one in ours.unwanted)]
    if extra:
        raise ProofError(f"{built.name} holds {', '.join(extra)}")


def _compare(built: Path, what: str, found: Iterable[str], expected: Iterable[str]) -> None:
    found, expected = set(found), set(expected)
    if found != expected:
        raise ProofError(
            f"{built.name} has the {what} {', '.join(sorted(found))}, "
            f"not {', '.join(sorted(expected))}"
        )
