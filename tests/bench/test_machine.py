"""Facts of the machine, read where they are and unknown where they aren't."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mer_bench import BenchError, choose_cores, machine
from mer_bench.contender import name_entries
from mer_bench.profile import find_family


def test_facts() -> None:
    facts = machine.describe_machine()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["versions"]["onnxruntime"]
    assert len(facts["load"]) == 3
    assert all(facts[name] for name in ("cpu", "board", "gpu", "governor", "power_mode", "kernel"))
    json.dumps(facts)
    json.dumps(machine.describe_state())


def test_temperatures(tmp_path: Path) -> None:
    for number, (name, degrees) in enumerate([("cpu", "41500"), ("cpu", "42000"), ("off", "")]):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        (zone / "type").write_text(f"{name}\n")
        (zone / "temp").write_text(f"{degrees}\n")
    assert machine.read_temperatures(tmp_path) == {"cpu": 41.5, "cpu (1)": 42.0}
    assert machine.read_temperatures(tmp_path / "nowhere") == machine.UNKNOWN


def test_power_mode_of_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN'\necho 0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.find_power_mode() == "NV Power Mode: MAXN 0"
    tool.write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(machine, "POWER_PROFILE", tmp_path / "nowhere")
    assert machine.find_power_mode() == machine.UNKNOWN


def test_cores() -> None:
    usable = sorted(os.sched_getaffinity(0))
    assert choose_cores(1) == (usable[-1],)
    with pytest.raises(BenchError, match="more than the"):
        choose_cores(len(usable) + 1)


def test_names() -> None:
    def named(*paths: str, reference: str | None = None) -> list[str]:
        given = [(Path(path), Path(path)) for path in paths]
        return [entry.name for entry in name_entries(given, reference)]

    assert named("a/ia", "b/it") == ["ia", "it"]
    assert named("x/a/ia", "x/b/ia", reference="ia") == ["reference", "a/ia", "b/ia"]
    with pytest.raises(BenchError, match="named twice"):
        named("a/ia", "a/ia")
    with pytest.raises(BenchError, match="called reference"):
        named("a/reference", reference="ia")


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("QLinearConv", "convolution"),
        ("GroupConvolution", "convolution"),
        ("Convert", "moving data"),
        ("QLinearConcat", "moving data"),
        ("DequantizeLinear", "quantise"),
        ("FullyConnected", "matrix product"),
        ("NhwcMaxPool", "pooling"),
        ("QLinearAdd", "elementwise"),
        ("aten::mkldnn_convolution", "convolution"),
    ],
)
def test_family(kind: str, family: str) -> None:
    assert find_family(kind) == family
