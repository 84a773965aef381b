"""Run the runtime with the oldest and the newest versions that pyproject.toml admits.

    python scripts/prove_versions.py [--only ENVIRONMENT]...

Each environment is a virtual environment of its own, with the wheel and OpenVINO in it and no
PyTorch: one package at its lower bound, or the newest that the index has, beside the versions of
constraints.txt; then all at once, on this Python and on the oldest and the newest that are here.
There the bundle that ships answers its golden inputs in both engines, and the runtime's tests run
on the wheel. The results are kept in docs/versions.json as they come, and the table of
docs/reference/versions.md is made of them. All of it takes about an hour.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from distributions import build
from make_tables import write_all_tables
from mer_runtime.console import Command
from mer_runtime.engines.processor import name_cpu, read_instructions
from mer_runtime.files import write_file
from prove_wheel import (
    CONSTRAINTS,
    WHEEL_HELP,
    add_test_tools,
    check_origin,
    make_environment,
)
from steps import ROOT, ProofError, run_step
from target_wheels import read_metadata

RESULTS = Path("docs") / "versions.json"
EXTRA = "openvino"
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
    "scikit-image",
)
ENGINES = ("onnxruntime", "openvino")
TESTS = ("tests/runtime", "tests/cli/test_run.py")
#: The same tests on every machine: without the corpus and without a browser.
SELECTED = "not corpus and not browser"
Json = dict[str, Any]
Ranges = Mapping[str, SpecifierSet]


@dataclass(frozen=True)
class Environment:
    """Which package is at which end of its range; others are as constraints.txt has them.

    Attributes:
        package: None stands for all of them.
        python: such as ``3.10``; None stands for this one.
    """

    newest: bool
    package: str | None = None
    python: str | None = None

    @property
    def name(self) -> str:
        name = f"{'newest' if self.newest else 'oldest'} {self.package or 'of all'}"
        return f"{name}, Python {self.python}" if self.python else name


#: No package's lower bound has a wheel for the newest Python, so there is no "oldest" of it.
ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        *(Environment(newest, package) for package in (*ENGINES, None) for newest in (False, True)),
        Environment(False, python="3.10"),
        Environment(True, python="3.10"),
        Environment(True, python=NEWEST_PYTHON),
    )
}


def read_ranges(wheel: Path, python: str | None = None) -> Ranges:
    """What a wheel of ours admits of each package that the runtime may import.

    Args:
        python: the one it is for; by default this.
    """
    ranges: dict[str, SpecifierSet] = {}
    target = {"extra": EXTRA} | ({"python_version": python} if python else {})
    for line in read_metadata(wheel).get_all("Requires-Dist") or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate(target):
            ranges[str(canonicalize_name(wanted.name))] = wanted.specifier
    return ranges


def read_pins(text: str) -> dict[str, str]:
    """The versions that a constraints file has for this Python."""
    pins: dict[str, str] = {}
    for line in text.splitlines():
        if pin := line.partition("#")[0].strip():
            wanted = Requirement(pin)
            if wanted.marker is None or wanted.marker.evaluate():
                (one,) = wanted.specifier
                pins[canonicalize_name(wanted.name)] = one.version
    return pins


def find_floor(package: str, admitted: SpecifierSet) -> str:
    """The lower bound of what is admitted.

    Raises:
        ProofError: there is none.
    """
    floors = [one.version for one in admitted if one.operator == ">="]
    if len(floors) != 1:
        raise ProofError(f"pyproject.toml gives {package} no lower bound: {admitted or 'any'}")
    return floors[0]


def constrain(environment: Environment, ranges: Ranges, pins: Mapping[str, str]) -> list[str]:
    """pip's constraints for an environment.

    A pin is an upper bound there: old versions of one package may want older ones of another.
    Where nothing is said, pip takes the newest that is admitted.
    """
    lines = []
    for package, admitted in ranges.items():
        if environment.package not in (None, package):
            lines.append(f"{package}<={pins[package]}")
        elif not environment.newest:
            lines.append(f"{package}=={find_floor(package, admitted)}")
    return lines


def prove(environment: Environment, wheel: Path, folder: Path) -> Json:
    """Make one environment in ``folder``, and run everything there.

    Returns:
        A row of docs/versions.json. What went wrong is in it, as ``error`` in place of a result.
    """
    ranges = read_ranges(wheel, environment.python)
    constraints = folder / "constraints.txt"
    pins = read_pins(CONSTRAINTS.read_text("utf-8"))
    constraints.write_text("\n".join(constrain(environment, ranges, pins)), "utf-8")
    row: Json = {
        "name": environment.name,
        "date": date.today().isoformat(),
        "cpu": f"{name_cpu()} ({', '.join(read_instructions())})",
        "python": platform.python_version(),
        "versions": {},
        "golden": {},
    }
    try:
        python = find_python(environment.python)
        place = folder / "environment"
        binaries = make_environment(place, f"{wheel}[{EXTRA}]", constraints, python)
        query = "import platform; print(platform.python_version())"
        row["python"] = run_step("python", [binaries / "python", "-c", query]).strip()
        row["versions"] = list_versions(binaries, ranges)
        row["golden"] = {engine: replay(binaries, engine, folder) for engine in ENGINES}
        check_home(folder)
        if environment.python is None:
            add_test_tools(binaries)
        else:
            install_test_tools(binaries, folder)
        for package in ("mer_runtime", *ENGINES):
            check_origin(binaries, package, folder)
        row["tests"] = run_tests(binaries, folder)
    except ProofError as error:
        row["error"] = str(error)
    return row


def find_python(version: str | None) -> Path:
    """The Python of a version, such as ``3.10``; without one, this.

    Raises:
        ProofError: it isn't here.
    """
    found = shutil.which(f"python{version}") if version else sys.executable
    if found is None:
        raise ProofError(f"there is no Python {version} here")
    # What a version manager puts on the path starts another one, or nothing.
    query = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    said, path = run_step(f"Python {version}", [found, "-c", query]).split(maxsplit=1)
    if version not in (None, said):
        raise ProofError(f"{found} is Python {said}, not {version}")
    return Path(path.strip())


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


def replay(binaries: Path, engine: str, folder: Path) -> Json:
    """The golden inputs of the shipped bundle in one engine, started afresh."""
    command = [str(binaries / "mer-run"), "ia-int8", "--self-test", "--json", "--backend", engine]
    # What would keep an engine from reporting to its maker, whatever we do.
    quiet = {"CI", "ORT_DISABLE_TELEMETRY"}
    variables = {name: value for name, value in _own_folders(folder).items() if name not in quiet}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=variables
    )
    with suppress(ValueError):
        said = json.loads(done.stdout)
        return {key: said[key] for key in ("passed", "max_difference", "tolerance")}
    return {"passed": False, "error": (done.stderr.strip() or "nothing said").splitlines()[-1]}


def check_home(folder: Path) -> None:
    """Raise ProofError where an engine left something in the user's home, as for telemetry."""
    left = [path for path in (folder / "home").rglob("*") if path.is_file()]
    if left:
        raise ProofError(f"left in the user's home: {left[0].relative_to(folder)}")


def run_tests(binaries: Path, folder: Path) -> Json:
    """The runtime's tests on the installed wheel: how many passed, failed and were skipped.

    Raises:
        ProofError: pytest ran none.
    """
    report = folder / "report.xml"
    # Started outside the checkout, which "python -m" would put on the path.
    command = [str(binaries / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-m", SELECTED, f"--junitxml={report}", *(str(ROOT / test) for test in TESTS)]
    subprocess.run(command, check=False, cwd=folder, env=_own_folders(folder))
    if not report.is_file():
        raise ProofError("pytest ran no test")
    (suite,) = ElementTree.parse(report).getroot()
    total, failures, errors, skipped = (
        int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def has_passed(row: Json) -> bool:
    """Whether nothing went wrong in a row."""
    answers = row["golden"].values()
    return "error" not in row and all(a["passed"] for a in answers) and not row["tests"]["failed"]


def keep(row: Json, file: Path) -> None:
    """Put a row in the place of the last with its name."""
    rows = json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else []
    by_name = {one["name"]: one for one in (*rows, row)}
    kept = [by_name[name] for name in ENVIRONMENTS if name in by_name]
    write_file(file, (json.dumps({"rows": kept}, indent=1) + "\n").encode())


def _own_folders(folder: Path) -> dict[str, str]:
    """The environment's variables, with a home and a cache of its own.

    Nothing that another one prepared or proved counts.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    places = {"MER_CACHE": folder / "cache", "HOME": home, "XDG_CACHE_HOME": home / "cache"}
    return os.environ | {name: str(place) for name, place in places.items()}


@click.command(cls=Command)
@click.option(
    "--only",
    type=click.Choice(list(ENVIRONMENTS)),
    multiple=True,
    help="Run this environment; others keep their results.  [default: all]",
)
@click.option("--wheel", type=click.Path(exists=True, path_type=Path), help=WHEEL_HELP)
def main(only: tuple[str, ...], wheel: Path | None) -> None:
    """Prove the runtime with the oldest and the newest versions that pyproject.toml admits.

    \b
    Example:
        python scripts/prove_versions.py --only "oldest of all"
    """
    os.environ.pop("PYTHONPATH", None)  # it would come before the wheel
    failed = []
    with tempfile.TemporaryDirectory() as name:
        wheel = wheel.resolve() if wheel else build("mer-edge", Path(name).resolve())
        for chosen in only or ENVIRONMENTS:
            click.echo(f"{chosen}:")
            with tempfile.TemporaryDirectory() as place:
                row = prove(ENVIRONMENTS[chosen], wheel, Path(place).resolve())
            keep(row, ROOT / RESULTS)
            click.echo(json.dumps(row))
            if not has_passed(row):
                failed.append(chosen)
    write_all_tables()
    if failed:
        raise ProofError(f"wrong in {', '.join(failed)}: see {RESULTS}")


if __name__ == "__main__":
    main()
