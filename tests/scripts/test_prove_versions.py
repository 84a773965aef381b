"""The parts of the versions' proof that need no environment; the rest is ``make test-versions``."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from version_environments import find_floor

Load = Callable[[str], ModuleType]
ROOT = Path(__file__).resolve().parents[2]

REQUIRES = """
numpy>=1.26
Some.Engine>=1.19,!=1.20,<3
other>=2025.0; extra == 'openvino'
mer-edge[report]; extra == 'train'
torch>=2.5; extra == 'train'
logger>=2; extra == 'train'
"""


@pytest.fixture(scope="module")
def script(load_script: Load) -> ModuleType:
    return load_script("prove_versions")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """One of metadata alone."""
    wheel = tmp_path / "ours-0.1-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", "Name: ours", "Version: 0.1"]
    lines += [f"Requires-Dist: {line}" for line in REQUIRES.split("\n") if line]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("ours-0.1.dist-info/METADATA", "\n".join(lines) + "\n")
    return wheel


def test_python_has_a_name_of_its_own(script: ModuleType) -> None:
    assert script.Environment(True, python="3.10").name == "newest of all, Python 3.10"
    assert script.find_python(None).samefile(sys.executable)
    with pytest.raises(script.ProofError, match=r"3\.99"):
        script.find_python("3.99")


def test_base_and_openvino_without_the_rest(script: ModuleType, wheel: Path) -> None:
    ranges = script.read_ranges(wheel, script.Environment(True))
    assert list(ranges) == ["numpy", "some-engine", "other"]


def test_extras_without_what_is_given(script: ModuleType, wheel: Path) -> None:
    environment = script.Environment(False, extras=("openvino", "train"))
    assert environment.name == "oldest of the extras"
    assert script.constrain(environment, script.read_ranges(wheel, environment)) == [
        "numpy==1.26",
        "some-engine==1.19",
        "other==2025.0",
        "logger==2",
    ]


def test_newest_is_whatever_there_is(script: ModuleType, wheel: Path) -> None:
    environment = script.Environment(True)
    assert script.constrain(environment, script.read_ranges(wheel, environment)) == []


@pytest.mark.parametrize("admitted", ["", "<5", ">4"])
def test_range_without_a_lower_bound_is_refused(script: ModuleType, admitted: str) -> None:
    with pytest.raises(script.ProofError, match="gives av no lower bound"):
        find_floor("av", SpecifierSet(admitted))


def test_what_is_pinned_is_admitted(script: ModuleType) -> None:
    """``pip install -c constraints.txt`` could install nothing otherwise."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(pin) for line in lines if (pin := line.partition("#")[0].strip())]
    versions = {
        pin.name: next(iter(pin.specifier)).version
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    project = text.partition("\ndependencies = [")[2].partition("\ndocs = [")[0]
    found = re.findall(r'"([a-z][a-z0-9-]+>=[^"]+)"', project)
    assert len(found) >= 14
    for wanted in map(Requirement, found):
        if wanted.name in versions and not (wanted.marker and not wanted.marker.evaluate()):
            assert wanted.specifier.contains(versions[wanted.name]), wanted
        assert find_floor(wanted.name, wanted.specifier)


def make_row(name: str, **settings: Any) -> dict[str, Any]:
    answer = {"passed": True, "max_difference": 0.011, "tolerance": 0.5}
    return {
        "name": name,
        "date": "2026-11-27",
        "cpu": "CPU (avx2)",
        "python": "3.11.2",
        "versions": {"numpy": "1.26.0"},
        "golden": {"onnxruntime": answer, "openvino": answer},
        "tests": {"passed": 7, "failed": 0, "skipped": 1},
        **settings,
    }


WRONG = {"passed": False, "max_difference": 0.7, "tolerance": 0.5}
FAULTS: list[dict[str, Any]] = [
    {"tests": {"passed": 6, "failed": 1, "skipped": 1}},
    {"golden": {"onnxruntime": WRONG}},
    {"golden": {"onnxruntime": {"passed": False, "error": "no engine"}}},
    {"error": "can't be installed"},
]


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_goes_wrong_is_noticed(script: ModuleType, fault: dict[str, Any]) -> None:
    assert script.has_passed(make_row("oldest of all"))
    assert not script.has_passed(make_row("oldest of all", **fault))


def test_row_takes_the_place_of_the_last(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "versions.json"
    for name in ("newest of all", "oldest of all", "oldest of all, Python 3.10"):
        script.keep(make_row(name), file)
    script.keep(make_row("newest of all", python="3.13"), file)
    rows = json.loads(file.read_text())["rows"]
    names = ["oldest of all, Python 3.10", "oldest of all", "newest of all"]
    assert [(row["name"], row["python"]) for row in rows] == [
        *((name, "3.11.2") for name in names[:2]),
        (names[2], "3.13"),
    ]


def test_table_shows_what_ran_and_what_went_wrong(load_script: Load) -> None:
    rows = [
        make_row("oldest of all"),
        make_row("newest of all", **FAULTS[0], **FAULTS[1]),
        make_row(
            "newest of all, Python 3.13", versions={}, golden={}, error="no wheel", python="3.13"
        ),
    ]
    del rows[2]["tests"]
    assert load_script("engine_tables").format_versions({"rows": rows}).splitlines() == [
        "CPU (avx2), Python 3.11.2, 2026-11-27:",
        "",
        "| environment | numpy | golden inputs in onnxruntime | golden inputs in openvino | "
        "runtime's tests |",
        "|---|---|---|---|---|",
        "| oldest of all | 1.26.0 | 0.011 of 0.5 | 0.011 of 0.5 | 7 passed, 1 skipped |",
        "| newest of all | 1.26.0 | **wrong:** 0.7 of 0.5 |  | 6 passed, **1 failed**, 1 skipped |",
        "",
        "CPU (avx2), Python 3.13, 2026-11-27:",
        "",
        "| environment | numpy | golden inputs in onnxruntime | golden inputs in openvino | "
        "runtime's tests |",
        "|---|---|---|---|---|",
        "| newest of all, Python 3.13 |  |  |  | **not run:** no wheel |",
    ]
