"""A checkpoint goes into the package with one file of ranges, proved in every dialect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from mer import load_checkpoint
from mer.data.cache import Cache
from mer_calibration import DIALECTS, Ranges
from mer_export import ExportOptions, export_bundle
from mer_export.targets import find_dialect

Load = Callable[[str], ModuleType]


@pytest.fixture
def script(load_script: Load) -> ModuleType:
    return load_script("ship_checkpoint")


def test_every_dialect_is_proved(script: ModuleType) -> None:
    assert sorted(find_dialect(target, cpu or "x86") for target, cpu in script.PROVED) == sorted(
        DIALECTS
    )


def test_ranges_ship_once_all_have_passed(
    script: ModuleType,
    fitted: tuple[Path, Path],
    graphs_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino")
    shipped = tmp_path / "ia.safetensors"
    monkeypatch.setattr(script, "shipped_checkpoint", lambda name: shipped)
    monkeypatch.setattr(script, "BUNDLED", ())
    proved: list[tuple[Any, Any, Any]] = []

    def export(*args: Any, **options: Any) -> Any:
        report = export_bundle(*args, **options)
        chosen: ExportOptions = args[2]
        proved.append((chosen.target, chosen.cpu, chosen.ranges))
        assert report.gate.kind == "validation"
        return report

    monkeypatch.setattr(script, "export_bundle", export)
    checkpoint, cache = fitted
    done = CliRunner().invoke(script.main, [str(checkpoint), str(cache)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [pair[:2] for pair in proved] == list(script.PROVED)
    # Calibrated once.
    assert [ranges is None for *_, ranges in proved] == [True, False, False, False]
    assert done.stdout.count("Exported") == 4
    assert shipped.stat().st_size < 0.6 * checkpoint.stat().st_size
    ranges = Ranges.read(tmp_path / "ia.ranges.json")
    assert set(ranges.dialects) == set(DIALECTS)
    assert ranges.corpus == Cache.open(cache).digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ia.ranges.json", "ia.safetensors"]
    # They are of the checkpoint as it ships, in half precision.
    assert load_checkpoint(shipped).spec == load_checkpoint(checkpoint).spec
    report = export_bundle(shipped, tmp_path / "bundle", ExportOptions(cpu="arm", timing=False))
    assert report.clips == ranges.clips == 16
