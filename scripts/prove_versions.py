"""Run the packages with the oldest and the newest versions that pyproject.toml admits.

    python scripts/prove_versions.py [--only ENVIRONMENT]... [--resume]

Each environment is a virtual environment of its own, with the wheel and OpenVINO in it and no
PyTorch: every package at its lower bound, or the newest that the index has, on this Python and on
the oldest and the newest that are here. There the bundle that ships answers its golden inputs in
both engines, and the runtime's tests run on the wheel. Two more have the packages of the extras
that train, export, report and share out, and run those commands' tests; PyTorch is this
environment's. The results are kept in docs/versions.json as they come, and the tables of
docs/reference/versions.md are made of them. All of it takes about an hour.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from distributions import build
from make_tables import write_all_tables
from mer_runtime.console import Command
from mer_runtime.engines.processor import name_cpu, read_instructions
from mer_runtime.files import write_file
from prove_wheel import (
    WHEEL_HELP,
    add_test_tools,
    check_origin,
    make_environment,
)
from steps import ROOT, ProofError, run_step
from version_environments import (
    ENVIRONMENTS,
    EXTRA,
    Environment,
    constrain,
    find_python,
    install_extras,
    install_test_tools,
    list_versions,
    read_ranges,
)

RESULTS = Path("docs") / "versions.json"
ENGINES = ("onnxruntime", "openvino")
TESTS = ("tests/runtime", "tests/cli/test_run.py")
#: Training with TensorBoard's log, export, a report's charts, a folder on Ray.
TESTS_OF_EXTRAS = (
    "tests/cli/test_train.py",
    "tests/cli/test_export.py",
    "tests/cli/test_run_ray.py",
    "tests/bench/test_report.py",
)
#: The same tests on every machine: without the corpus and without a browser.
SELECTED = "not corpus and not browser"
Json = dict[str, Any]


def prove(environment: Environment, wheel: Path, folder: Path) -> Json:
    """Make one environment in ``folder``, and run everything there.

    Returns:
        A row of docs/versions.json. What went wrong is in it, as ``error`` in place of a result.
    """
    ranges = read_ranges(wheel, environment)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(constrain(environment, ranges)), "utf-8")
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
        if environment.extras != (EXTRA,):
            install_extras(binaries, ranges, constraints, folder)
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
        tests = TESTS if environment.extras == (EXTRA,) else TESTS_OF_EXTRAS
        row["tests"] = run_tests(binaries, folder, tests)
    except ProofError as error:
        row["error"] = str(error)
    return row


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


def run_tests(binaries: Path, folder: Path, tests: Sequence[str]) -> Json:
    """Tests on the installed wheel: how many passed, failed and were skipped.

    Raises:
        ProofError: pytest didn't come to its end.
    """
    report = folder / "report.xml"
    # Started outside the checkout, which "python -m" would put on the path.
    command = [str(binaries / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # A test that kills its process fails alone: another process goes on.
    command += ["-n", "2", "--dist", "loadfile"]
    command += ["-m", SELECTED, f"--junitxml={report}", *(str(ROOT / test) for test in tests)]
    done = subprocess.run(command, check=False, cwd=folder, env=_own_folders(folder))
    if not report.is_file():
        raise ProofError(f"pytest ended with {done.returncode} before its end")
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


def read_rows(file: Path) -> list[Json]:
    """The rows that were kept."""
    return json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else []


def keep(row: Json, file: Path) -> None:
    """Put a row in the place of the last with its name."""
    by_name = {one["name"]: one for one in (*read_rows(file), row)}
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
@click.option("--resume", is_flag=True, help="Leave out those whose kept result is good.")
@click.option("--wheel", type=click.Path(exists=True, path_type=Path), help=WHEEL_HELP)
def main(only: tuple[str, ...], resume: bool, wheel: Path | None) -> None:
    """Prove the packages with the oldest and the newest versions that pyproject.toml admits.

    \b
    Example:
        python scripts/prove_versions.py --only "oldest of all"
    """
    os.environ.pop("PYTHONPATH", None)  # it would come before the wheel
    failed = []
    with tempfile.TemporaryDirectory() as name:
        wheel = wheel.resolve() if wheel else build("mer-edge", Path(name).resolve())
        done = {row["name"] for row in read_rows(ROOT / RESULTS) if has_passed(row)}
        for chosen in only or ENVIRONMENTS:
            if resume and chosen in done:
                continue
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
