"""Which clips a calibration takes, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mer import Checkpoint, load_checkpoint
from mer.data.cache import Cache
from mer.data.splits import load_splits
from mer_calibration import CalibrationError
from mer_export.feeds import (
    FEWEST_CLIPS,
    choose_samples,
    hash_preprocessing,
    hash_samples,
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, write_cache: Callable[..., Path]) -> Cache:
    """Actors 1 to 5 and 11: four train."""
    path = tmp_path_factory.mktemp("data") / "cache"
    return Cache.open(write_cache(path, actors=(1, 2, 3, 4, 5, 11)))


@pytest.fixture(scope="module")
def model(fitted: tuple[Path, Path]) -> Checkpoint:
    return load_checkpoint(fitted[0])


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


def test_too_few_clips(
    tmp_path: Path, write_cache: Callable[..., Path], fitted: tuple[Path, Path]
) -> None:
    cache = write_cache(tmp_path / "cache", actors=(1, 11))
    with pytest.raises(CalibrationError, match=f"8 clips.*at least {FEWEST_CLIPS}"):
        choose_samples(Cache.open(cache), load_checkpoint(fitted[0]).spec)


def test_class_without_clips_is_done_without(large: Cache, model: Checkpoint) -> None:
    index = {"digest": large.digest, "detector": large.detector, "failures": []}
    rows = tuple(row for row in large.rows if row.emotion != 3)
    cache = Cache(large.path, large.spec, rows, index)
    samples = choose_samples(cache, model.spec, clips=16)
    counts = Counter(rows[sample.row].emotion for sample in samples)
    assert 3 not in counts
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_clip_keeps_the_one_modality_that_it_has(
    model: Checkpoint, write_cache: Callable[..., Path], tmp_path: Path
) -> None:
    """Whichever draw leaves its turn to which: no window is of nothing."""
    actors = (1, 2, 3, 4)  # of the training actors
    names = [f"01-01-{e:02d}-01-01-01-{a:02d}" for a in actors for e in range(1, 9)]
    path = write_cache(
        tmp_path / "cache", actors=actors, without_face=names[::3], without_voice=names[1::3]
    )
    cache = Cache.open(path)
    for seed in range(20):
        for sample in choose_samples(cache, model.spec, clips=16, seed=seed):
            told = cache.rows[sample.row]
            assert sample.face or sample.voice
            assert told.has_face or not sample.face
            assert told.has_voice or not sample.voice
