"""Which clips a calibration takes, and what it refuses."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer import Checkpoint, load_checkpoint
from mer.cache import Cache, clip_path
from mer.errors import CacheError
from mer.splits import load_splits
from mer_calibration import CalibrationError, Ranges
from mer_calibration.trial import SHOWN
from mer_export import ExportReport, export_bundle
from mer_export.calibration import (
    FEWEST_CLIPS,
    calibrate,
    choose_samples,
    hash_preprocessing,
    hash_samples,
)
from mer_export.graphs import Graphs, export_graphs


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, write_cache: Callable[..., Path]) -> Cache:
    """Actors 1 to 5 and 11: four train."""
    path = tmp_path_factory.mktemp("data") / "cache"
    return Cache.open(write_cache(path, actors=(1, 2, 3, 4, 5, 11)))


@pytest.fixture(scope="module")
def model(fitted: tuple[Path, Path]) -> Checkpoint:
    return load_checkpoint(fitted[0])


@pytest.fixture(scope="module")
def graphs(model: Checkpoint, graphs_once: None) -> Graphs:
    return export_graphs(model)


@pytest.mark.parametrize("clips", [16, 24, 1000])
def test_training_actors_clips_alike_of_each_class(
    large: Cache, model: Checkpoint, clips: int
) -> None:
    samples = choose_samples(large, model.spec, clips=clips)
    rows = [large.rows[sample.row] for sample in samples]
    assert len(samples) == min(clips, 32)
    assert len({row.id for row in rows}) == len(rows)
    held_out = load_splits().test | load_splits().validation
    assert held_out & {row.actor for row in large.rows}
    assert not held_out & {row.actor for row in rows}
    assert set(Counter(row.emotion for row in rows).values()) == {len(rows) // 8}


def test_some_clips_lack_a_face_or_a_voice(large: Cache, model: Checkpoint) -> None:
    samples = choose_samples(large, model.spec)
    face_only = [s for s in samples if s.face and not s.voice]
    voice_only = [s for s in samples if s.voice and not s.face]
    assert 2 <= len(face_only) <= len(samples) // 5
    assert 2 <= len(voice_only) <= len(samples) // 5
    assert all(s.face or s.voice for s in samples)


def test_hash_is_the_lists(large: Cache, model: Checkpoint) -> None:
    samples = choose_samples(large, model.spec)
    assert samples == choose_samples(large, model.spec), "drawn from a fixed seed"
    first = samples[0]
    others = [
        choose_samples(large, model.spec, seed=1),
        samples[:-1],
        samples[::-1],
        (dataclasses.replace(first, voice=not first.voice), *samples[1:]),
        (dataclasses.replace(first, id="another"), *samples[1:]),
    ]
    assert len({hash_samples(one) for one in (samples, *others)}) == 6


def test_hash_of_preprocessing(model: Checkpoint) -> None:
    spec = model.spec
    video, audio = spec.video, spec.audio
    others = [
        dataclasses.replace(spec, video=dataclasses.replace(video, colour="bgr")),
        dataclasses.replace(spec, audio=dataclasses.replace(audio, sample_rate=8000)),
    ]
    assert len({hash_preprocessing(one) for one in (spec, *others)}) == 3
    renamed = dataclasses.replace(spec, labels=tuple(f"label {i}" for i in range(8)))
    assert hash_preprocessing(renamed) == hash_preprocessing(spec)


def test_ranges_carry_what_they_come_from(
    proved: ExportReport, calibration: Any, graphs: Graphs, model: Checkpoint, fitted: Any
) -> None:
    ranges: Ranges = calibration.ranges
    assert ranges.clips == len(calibration.samples) == 16
    assert ranges.clips_sha256 == hash_samples(calibration.samples)
    assert ranges.corpus == Cache.open(fitted[1]).digest
    ranges.require(graphs.hashes(), hash_preprocessing(model.spec))
    assert any(any(one) for one in ranges.exponents["encoder"].values())
    # The cache's pictures are 60 or 200 in each colour.
    assert all(60 < mean < 200 for mean in ranges.pixel_means)
    assert {layer.graph for layer in proved.layers} == {"encoder", "head"}
    assert sum(layer.error_share for layer in proved.layers) == pytest.approx(100, abs=1e-3)
    for shown in SHOWN:
        total = sum(layer.shares[shown] for layer in proved.layers)
        assert total == pytest.approx(100, abs=1e-3), shown
    # Without a face a device runs no encoder.
    assert {layer.graph for layer in proved.layers if layer.shares["audio"]} == {"head"}
    assert all(np.isfinite(layer.sqnr) for layer in proved.layers)


class TestRefused:
    """What can't be calibrated on, each in a line that says what to do."""

    def test_too_few_clips(
        self, tmp_path: Path, write_cache: Callable[..., Path], fitted: tuple[Path, Path]
    ) -> None:
        cache = write_cache(tmp_path / "cache", actors=(1, 11))
        with pytest.raises(CalibrationError, match=f"8 clips.*at least {FEWEST_CLIPS}"):
            choose_samples(Cache.open(cache), load_checkpoint(fitted[0]).spec)

    def test_class_without_clips_is_done_without(self, large: Cache, model: Checkpoint) -> None:
        index = {"digest": large.digest, "detector": large.detector, "failures": []}
        rows = tuple(row for row in large.rows if row.emotion != 3)
        cache = Cache(large.path, large.spec, rows, index)
        samples = choose_samples(cache, model.spec, clips=16)
        counts = Counter(rows[sample.row].emotion for sample in samples)
        assert 3 not in counts
        assert max(counts.values()) - min(counts.values()) <= 1

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
        with pytest.raises((CalibrationError, CacheError), match=f"{name}.*not finite.*mer-prep"):
            export_bundle(
                checkpoint,
                tmp_path / "out",
                calibration=tmp_path / "cache",
                precision="int8" if actor == 1 else "fp32",
            )
        assert [p.name for p in tmp_path.iterdir()] == ["cache"]

    def test_cache_of_another_sample_rate(self, large: Cache, model: Checkpoint) -> None:
        audio = dataclasses.replace(model.spec.audio, sample_rate=22_050)
        other = dataclasses.replace(model, spec=dataclasses.replace(model.spec, audio=audio))
        with pytest.raises(CacheError, match="sample_rate is 16000, not 22050"):
            calibrate(other, Graphs(*(None, None)), large)  # type: ignore[arg-type]

    def test_cache_of_another_size(
        self, large: Cache, tmp_path: Path, write_checkpoint: Callable[..., Path]
    ) -> None:
        with pytest.raises(CacheError, match="prepared otherwise than the model needs"):
            export_bundle(write_checkpoint(), tmp_path / "out", calibration=large.path)
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
            export_bundle(write_checkpoint(), tmp_path / "out", ranges=proved.bundle)
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
        report = export_bundle(tmp_path / "own.safetensors", tmp_path / "out", timing=False)
        assert report.precision == "int8"

    def test_file_that_is_none(self, fitted: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "ranges.json").write_text("{}")
        with pytest.raises(CalibrationError, match=r"ranges\.json.*can't be read"):
            export_bundle(fitted[0], tmp_path / "out", ranges=tmp_path / "ranges.json")
