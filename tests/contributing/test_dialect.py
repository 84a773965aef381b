"""``docs/contributing/dialect.md``, followed from a calibration to an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from mer import load_checkpoint
from mer.data.cache import Cache
from mer_calibration import DIALECTS, CalibrationError, Ranges
from mer_export import ExportOptions, export_bundle
from mer_export.calibration import calibrate
from mer_export.errors import ExportError
from mer_export.network.graphs import export_graphs
from mer_runtime import Recognizer


def test_guide(
    follow: Callable[[str], None],
    trained: tuple[Path, Path],
    sample_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follow("dialect.md")
    assert all(name == dialect.name for name, dialect in DIALECTS.items())
    for name in DIALECTS.keys() - {"x86", "plain"}:  # each takes its time
        monkeypatch.delitem(DIALECTS, name)
    checkpoint = load_checkpoint(trained[0])
    graphs = export_graphs(checkpoint)
    found = calibrate(checkpoint, graphs, Cache.open(trained[1]), dialect="plain", clips=16)
    assert set(found.ranges.dialects) == {"x86", "plain"}
    file = tmp_path / "ranges.json"
    found.ranges.write(file)
    folder = tmp_path / "out"
    export_bundle(trained[0], folder, ExportOptions(ranges=file, cpu="plain", timing=False))
    recognizer = Recognizer.load(folder, threads=1)
    assert recognizer.bundle.engine == {"dialect": "plain"}
    assert recognizer.predict(sample_clip).label in recognizer.spec.labels

    older = {name: one for name, one in found.ranges.dialects.items() if name != "plain"}
    dataclasses.replace(found.ranges, dialects=older).write(file)
    with pytest.raises(CalibrationError, match=r"no ranges for plain, .*: calibrate again"):
        export_bundle(trained[0], folder, ExportOptions(ranges=file, cpu="plain", timing=False))
    foreign = found.ranges.replace("elsewhere", found.ranges.of("x86"))
    foreign.write(file)
    assert Ranges.read(file) == foreign, "a dialect that nobody here knows isn't left alone"


def test_unknown_cpu(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no kind of CPU abacus: take x86, arm"):
        export_bundle(out=tmp_path / "out", options=ExportOptions(cpu="abacus"))
