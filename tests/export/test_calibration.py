"""What a calibration leaves behind, and what it refuses."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer import Checkpoint, load_checkpoint
from mer.data.cache import Cache
from mer.data.index import clip_path
from mer.errors import CacheError
from mer_calibration import DIALECTS, CalibrationError, Ranges
from mer_export import ExportOptions, ExportReport, export_bundle
from mer_export.calibration import calibrate, keep_float
from mer_export.feeds import hash_preprocessing, hash_samples
from mer_export.network.graphs import Graphs, export_graphs
from mer_export.ranges import find_ranges
from mer_runtime.feeds import MODALITIES


@pytest.fixture(scope="module")
def model(fitted: tuple[Path, Path]) -> Checkpoint:
    return load_checkpoint(fitted[0])


@pytest.fixture(scope="module")
def graphs(model: Checkpoint, graphs_once: None) -> Graphs:
    return export_graphs(model)


def test_ranges_carry_what_they_come_from(
    proved: ExportReport, calibration: Any, graphs: Graphs, model: Checkpoint, fitted: Any
) -> None:
    ranges: Ranges = calibration.ranges
    assert ranges.clips == len(calibration.samples) == 16
    assert ranges.clips_sha256 == hash_samples(calibration.samples)
    assert ranges.corpus == Cache.open(fitted[1]).digest
    ranges.require(graphs.hashes(), hash_preprocessing(model.spec))
    assert any(any(one) for one in ranges.exponents["encoder"].values())
    cache = Cache.open(fitted[1])
    shown = [cache.crops(one.row).mean(axis=(0, 1, 2)) for one in calibration.samples if one.face]
    assert ranges.pixel_means == pytest.approx(np.mean(shown, axis=0), abs=2e-3)
    assert {layer.graph for layer in proved.layers} == {"encoder", "head"}
    assert all(np.isfinite(layer.sqnr) for layer in proved.layers)
    assert min(layer.sqnr for layer in proved.layers) > 10
    # One clip of ten lacks its face and one its voice; every clip's modalities are shown alone.
    lacking = {"audio": [not s.voice for s in calibration.samples]}
    lacking["video"] = [not s.face for s in calibration.samples]
    for dialect in DIALECTS:
        noise = ranges.of(dialect).noise
        assert set(noise.logits) == set(MODALITIES), dialect
        for one, missing in lacking.items():
            assert noise.logits[one].windows == 16 - sum(missing)  # type: ignore[index]
        assert 20 < noise.sqnr < 60


def test_one_calibration_serves_every_dialect(
    model: Checkpoint, graphs: Graphs, fitted: tuple[Path, Path], calibration: Any
) -> None:
    """The report is of the dialect that was asked for; the ranges are those of any other."""
    steps: list[tuple[int, int]] = []
    found = calibrate(
        model,
        graphs,
        Cache.open(fitted[1]),
        dialect="tensorrt",
        progress=lambda *step: steps.append(step),
    )
    assert found.ranges == calibration.ranges
    assert set(found.ranges.dialects) == set(DIALECTS)
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    names = [[layer.name for layer in one.layers] for one in (found, calibration)]
    assert names[0] == names[1]
    assert [layer.sqnr for layer in found.layers] != [layer.sqnr for layer in calibration.layers]


def test_layers_left_in_float_are_measured_again(
    model: Checkpoint, graphs: Graphs, fitted: tuple[Path, Path], calibration: Any
) -> None:
    """For their dialect alone."""
    head = tuple(layer.name for layer in calibration.layers if layer.graph == "head")
    steps: list[tuple[int, int]] = []
    cache = Cache.open(fitted[1])
    kept = keep_float(
        model, graphs, cache, calibration, "arm", head, lambda *step: steps.append(step)
    )
    found, before = kept.of("arm"), calibration.ranges.of("arm")
    assert found.float_layers == head
    assert found.bias_correction == before.bias_correction, "of the encoder"
    assert found.noise.sqnr == before.noise.sqnr
    # Without a face there is no encoder, so all that is left are the roundings of float32.
    assert found.noise.logits["audio"].rms < 1e-3 * before.noise.logits["audio"].rms
    assert 0.1 < found.noise.logits["video"].rms / before.noise.logits["video"].rms < 1.5
    for other in DIALECTS:
        if other != "arm":
            assert kept.of(other) == calibration.ranges.of(other)
    assert steps[-1][0] == steps[-1][1]


class TestRefused:
    """What can't be calibrated on, each in a line that says what to do."""

    @pytest.mark.parametrize("actor", [1, 11], ids=["training", "validation"])
    def test_clip_that_is_not_finite(
        self,
        fitted: tuple[Path, Path],
        calibration: Any,
        graphs_once: None,
        tmp_path: Path,
        actor: int,
    ) -> None:
        checkpoint, cache = fitted
        shutil.copytree(cache, tmp_path / "cache")
        voiced = [s.id for s in calibration.samples if s.voice and s.id.endswith(f"-{actor:02d}")]
        name = voiced[0] if voiced else f"01-01-04-01-01-01-{actor:02d}"
        path = clip_path(tmp_path / "cache", name)
        record = np.load(path)
        record["level"] = np.nan
        np.save(path, record)
        with pytest.raises((CalibrationError, CacheError), match=f"{name}.*mer-prep"):
            export_bundle(
                checkpoint,
                tmp_path / "out",
                ExportOptions(precision="int8" if actor == 1 else "fp32"),
                calibration=tmp_path / "cache",
            )
        assert [p.name for p in tmp_path.iterdir()] == ["cache"]

    def test_cache_of_another_sample_rate(
        self, fitted: tuple[Path, Path], model: Checkpoint
    ) -> None:
        audio = dataclasses.replace(model.spec.audio, sample_rate=22_050)
        other = dataclasses.replace(model, spec=dataclasses.replace(model.spec, audio=audio))
        with pytest.raises(CacheError, match="sample_rate is 16000, not 22050"):
            calibrate(other, Graphs(*(None, None)), Cache.open(fitted[1]))  # type: ignore[arg-type]

    def test_cache_of_another_size(
        self, fitted: tuple[Path, Path], tmp_path: Path, write_checkpoint: Callable[..., Path]
    ) -> None:
        with pytest.raises(CacheError, match="prepared otherwise than the model needs"):
            export_bundle(write_checkpoint(), tmp_path / "out", calibration=fitted[1])
        assert not (tmp_path / "out").exists()

    def test_corpus_without_validation_actors(
        self, fitted: tuple[Path, Path], tmp_path: Path, write_cache: Callable[..., Path]
    ) -> None:
        cache = write_cache(tmp_path / "cache", actors=(1, 2))
        with pytest.raises(Exception, match="no actor of the corpus is in validation"):
            export_bundle(fitted[0], tmp_path / "out", calibration=cache)


class TestRangesOfAnother:
    def test_checkpoint(
        self,
        tmp_path: Path,
        write_checkpoint: Callable[..., Path],
        proved: ExportReport,
        graphs_once: None,
        bundle: Path,
    ) -> None:
        with pytest.raises(CalibrationError, match="made on another graph 'encoder'"):
            export_bundle(write_checkpoint(), tmp_path / "out", ExportOptions(ranges=proved.bundle))
        assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]

    def test_colour_order(self, calibration: Any, graphs: Graphs, model: Checkpoint) -> None:
        """The graphs are the same; what they are fed isn't."""
        video = dataclasses.replace(model.spec.video, colour="bgr")
        spec = dataclasses.replace(model.spec, video=video)
        with pytest.raises(CalibrationError, match="another preprocessing spec"):
            calibration.ranges.require(graphs.hashes(), hash_preprocessing(spec))

    def test_no_ranges_at_all(self, fitted: tuple[Path, Path], tmp_path: Path) -> None:
        shutil.copy(fitted[0], tmp_path / "own.safetensors")
        with pytest.raises(CalibrationError) as caught:
            export_bundle(tmp_path / "own.safetensors", tmp_path / "out")
        for word in ("own.safetensors", "--calibration", "--ranges", "--precision fp32"):
            assert word in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_ranges_beside_the_checkpoint_are_found(
        self, fitted: tuple[Path, Path], proved: ExportReport, graphs_once: None, tmp_path: Path
    ) -> None:
        shutil.copy(fitted[0], tmp_path / "own.safetensors")
        shutil.copy(proved.bundle / "ranges.json", tmp_path / "own.ranges.json")
        report = export_bundle(
            tmp_path / "own.safetensors", tmp_path / "out", ExportOptions(timing=False)
        )
        assert report.precision == "int8"

    def test_ranges_given_go_before_those_beside(self, calibration: Any, tmp_path: Path) -> None:
        checkpoint = tmp_path / "own.safetensors"
        dataclasses.replace(calibration.ranges, clips=1).write(tmp_path / "own.ranges.json")
        (tmp_path / "bundle").mkdir()
        given = tmp_path / "bundle" / "ranges.json"
        dataclasses.replace(calibration.ranges, clips=2).write(given)
        assert find_ranges(checkpoint).clips == 1
        assert find_ranges(checkpoint, given).clips == 2
        assert find_ranges(checkpoint, given.parent).clips == 2

    def test_dialect_that_was_not_calibrated(
        self, fitted: tuple[Path, Path], calibration: Any, graphs_once: None, tmp_path: Path
    ) -> None:
        dialects = {name: calibration.ranges.of(name) for name in ("x86", "tensorrt")}
        few = dataclasses.replace(calibration.ranges, dialects=dialects)
        few.write(tmp_path / "few.json")
        with pytest.raises(CalibrationError, match="no ranges for arm, only for tensorrt, x86"):
            export_bundle(
                fitted[0], tmp_path / "out", ExportOptions(ranges=tmp_path / "few.json", cpu="arm")
            )
        assert not (tmp_path / "out").exists()

    def test_file_that_is_none(self, fitted: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "ranges.json").write_text("{}")
        with pytest.raises(CalibrationError, match=r"ranges\.json.*can't be read"):
            export_bundle(
                fitted[0], tmp_path / "out", ExportOptions(ranges=tmp_path / "ranges.json")
            )
