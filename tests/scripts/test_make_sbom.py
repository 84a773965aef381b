"""The bill of materials of the environment that runs the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def script(load_script: Load) -> ModuleType:
    return load_script("make_sbom")


@pytest.fixture(scope="module")
def bill(script: ModuleType) -> Any:
    return script.make_sbom(Path(sys.executable))


def find(bill: Any, name: str) -> Any:
    (component,) = (c for c in bill["components"] if c["name"] == name)
    return component


def test_every_package_has_a_licence(script: ModuleType, bill: Any) -> None:
    assert bill["bomFormat"] == "CycloneDX"
    assert all(script.list_licences(component) for component in bill["components"])
    table = script.format_table(bill)
    assert any(line.startswith("numpy ") and "BSD" in line for line in table.splitlines())


def test_models_and_native_libraries_are_in_it(bill: Any) -> None:
    ours = {part["name"]: part for part in find(bill, "mer-edge")["components"]}
    yunet = next(part for name, part in ours.items() if "YuNet" in name)
    assert yunet["licenses"] == [{"license": {"name": "MIT"}}]
    inside = {part["name"]: part for part in find(bill, "av")["components"]}
    assert "LGPL" in inside["FFmpeg's libavcodec"]["licenses"][0]["license"]["name"]
    assert any(name.startswith("libavcodec") and ".so" in name for name in inside)


def test_a_package_without_a_licence_is_an_error(script: ModuleType, bill: Any) -> None:
    silent = {**bill, "components": [{**find(bill, "numpy"), "licenses": []}, find(bill, "av")]}
    with pytest.raises(script.ProofError, match=r"no licence is known of numpy$"):
        script.check_licences(silent)
