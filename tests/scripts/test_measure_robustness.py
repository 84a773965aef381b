"""A clip spoilt in every way, answered by the shipped checkpoint and its int8 bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mer.data.cache import Cache
from mer.data.corpus import find_recordings
from mer.data.preparation import prepare_cache
from mer.errors import CorpusError
from mer.evaluate.evaluation import evaluate_model

Load = Callable[[str], ModuleType]
TEST_CLIP, TRAINING_CLIP = "01-01-05-02-01-01-05", "01-01-03-01-01-01-01"


@pytest.fixture(scope="module")
def small(corpus: Path, yunet: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(corpus, cache) of one test actor's clip and one training actor's."""
    root = tmp_path_factory.mktemp("small")
    (root / "corpus").mkdir()
    for clip in (TEST_CLIP, TRAINING_CLIP):
        (recording,) = (one for one in find_recordings(corpus) if one.id == clip)
        shutil.copy(recording.path, root / "corpus")
    prepare_cache(root / "corpus", root / "cache", face_detector=yunet, jobs=1)
    return root / "corpus", root / "cache"


@pytest.mark.corpus
def test_every_corruption_is_measured(
    load_script: Load, small: tuple[Path, Path], yunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("measure_robustness")
    corpus, cache = small
    rows, digest = script.measure_fusion(corpus, cache, "ia", face_detector=yunet)
    assert digest == Cache.open(cache).digest
    names = [row["name"] for row in rows]
    assert names[0] == "none"
    talkers = script.read_talkers(Cache.open(cache), 1)
    assert names[1:] == [one.name for one in script.list_corruptions(talkers)]
    # As recorded, both answer as mer-eval has them.
    for key, model in (("float", "ia"), ("int8", "ia-int8")):
        assert rows[0][key]["prec1"] == evaluate_model(model, cache).scores.prec1
    assert rows[0]["frames_with_face"] == 100
    # Each row is another answer: something was changed on the way to the model.
    moved = {row["name"]: row["max_logit_difference"] for row in rows}
    assert len(set(moved.values())) > 0.8 * len(rows)
    assert all(row["n"] == 1 for row in rows)
    # Finished rows aren't measured again, one that is lacking is.
    work = cache / "robustness-ia.json"
    kept = json.loads(work.read_text())
    del kept["rows"]["telephone"]
    work.write_text(json.dumps(kept))
    measured: list[str] = []
    measure = script.Bench.measure

    def count(bench: object, corruption: Any, step: object) -> object:
        measured.append(corruption.name)
        return measure(bench, corruption, step)

    monkeypatch.setattr(script.Bench, "measure", count)
    again, _ = script.measure_fusion(corpus, cache, "ia", face_detector=yunet)
    assert measured == ["none", "telephone"]
    assert again == rows
    # Another seed is another measurement.
    assert script.read_work(work, {**kept["key"], "seed": 2}) == {}


@pytest.mark.corpus
def test_babble_is_of_training_actors(load_script: Load, small: tuple[Path, Path]) -> None:
    cache = Cache.open(small[1])
    talkers = load_script("measure_robustness").read_talkers(cache, 1)
    (row,) = cache.select("train")
    np.testing.assert_array_equal(talkers, cache.waveform(row)[None] / np.float32(32_768))


@pytest.mark.corpus
def test_what_can_t_be_measured(
    load_script: Load, small: tuple[Path, Path], yunet: Path, tmp_path: Path
) -> None:
    script = load_script("measure_robustness")
    corpus, cache = small
    shutil.copy(corpus / f"{TRAINING_CLIP}.mp4", tmp_path)
    with pytest.raises(CorpusError, match=f"lacks 1 clips .* such as {TEST_CLIP}"):
        script.measure_fusion(tmp_path, cache, "ia", face_detector=yunet)
