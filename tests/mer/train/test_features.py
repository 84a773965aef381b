"""What training sees of a clip: standardised voices, crops in few views, features kept."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mer.checkpoint import load_encoder
from mer.data.augmentation import Example, FaceView
from mer.data.cache import Cache
from mer.data.dataset import LiveFaces, Voices, measure_standardisation
from mer.data.features import FrozenFaces, find_view, list_views
from mer.data.index import clip_path
from mer.data.spoiling import CROP_KINDS
from mer.models import Standardiser, build_model
from mer.protocols import PAPER, REFERENCE, ROBUST, TUNED
from mer.train.training import train_model

Write = Callable[..., Path]


def test_standardisation_is_of_the_training_voices(tmp_path: Path, write_cache: Write) -> None:
    silent = "01-01-01-01-01-01-02"
    cache = Cache.open(write_cache(tmp_path / "cache", without_voice=[silent]))
    rows = cache.select("train")
    audio = measure_standardisation(cache, rows, cache.spec.audio)
    voiced = [row for row in rows if cache.rows[row].id != silent]
    assert len(voiced) == len(rows) - 1 == 15
    mfcc = np.stack([cache.mfcc(row, audio) for row in voiced])
    # Six significant digits are kept.
    assert audio.mean == pytest.approx(mfcc.mean(axis=(0, 2)), rel=1e-5, abs=1e-4)
    assert audio.std == pytest.approx(mfcc.std(axis=(0, 2)), rel=1e-5)
    assert audio.mean[0] == float(f"{audio.mean[0]:.6g}")


def test_missing_modality_is_raw_zeros(tmp_path: Path, write_cache: Write, encoder: Path) -> None:
    silent, faceless = "01-01-01-01-01-01-02", "01-01-01-01-01-01-01"
    folder = write_cache(tmp_path / "cache", without_voice=[silent], without_face=[faceless])
    cache = Cache.open(folder)
    row = {r.id: i for i, r in enumerate(cache.rows)}
    audio = measure_standardisation(cache, cache.select("train"), cache.spec.audio)
    spec = dataclasses.replace(cache.spec, audio=audio)
    generator = np.random.default_rng(0)
    for voices in (Voices(cache, audio), Voices(cache, audio, TUNED.voice)):
        mfcc = voices.mfcc([Example(row[silent]), Example(row[faceless], voice=0.0)], generator)
        assert mfcc.abs().max() == 0
        assert voices.mfcc([Example(row[faceless])], generator).abs().max() > 10
    # Zeros are what is standardised, not its result.
    standardised = Standardiser(spec).audio(torch.zeros(1, *audio.shape))
    assert standardised.abs().max() > 1
    model = build_model(spec).eval()
    model.visual_model.load_state_dict(load_encoder(encoder), strict=False)
    faces = LiveFaces(cache, spec, model, "cpu")
    with torch.no_grad():
        dark = faces.features([Example(row[silent], face=FaceView(light=0.0, angle=3))])
        none = faces.features([Example(row[faceless])])
        shown = faces.features([Example(row[silent])])
    assert torch.equal(dark, none)
    assert (dark - shown).abs().max() > 1e-3


def test_kept_features_equal_the_encoder_s(
    write_cache: Write, encoder: Path, tmp_path: Path
) -> None:
    data = Cache.open(write_cache(tmp_path / "cache"))
    model = build_model(data.spec)
    model.visual_model.load_state_dict(load_encoder(encoder), strict=False)
    frozen = FrozenFaces(data, data.spec, model, "cpu")
    rows, view = data.select("train"), FaceView(flip=True, angle=7)
    steps: list[tuple[int, int]] = []
    frozen.prepare([(rows, [FaceView(), view])], lambda *step: steps.append(step))
    assert steps[-1] == (32, 32)  # two actors of eight clips, two views
    model.eval()
    examples = [Example(rows[5], face=FaceView(True, 10)), Example(rows[9]), Example(rows[9])]
    examples[2] = dataclasses.replace(examples[2], face=FaceView(light=0.0))
    exact = [Example(rows[5], face=view), *examples[1:]]
    with torch.no_grad():
        expected = LiveFaces(data, data.spec, model, "cpu").features(exact)
    # Another batch size may add up in another order; the features reach 10.
    assert torch.allclose(frozen.features(examples), expected, rtol=1e-4, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


def test_features_are_computed_once_and_again_when_a_clip_changed(
    write_cache: Write, encoder: Path, tmp_path: Path
) -> None:
    cache = write_cache(tmp_path / "cache")

    def encoded() -> list[int]:
        """Totals of the encoding stages of one run."""
        totals: list[int] = []

        def progress(stage: str, done: int, total: int) -> None:
            if stage == "features" and done == total:
                totals.append(total)

        number = len(list(tmp_path.glob("run*")))
        run = tmp_path / f"run{number}"
        train_model(cache, run, encoder=encoder, freeze="encoder", epochs=1, progress=progress)
        return totals

    views = len(list_views(PAPER))
    assert views == 6
    assert encoded() == [16 * views + 8]  # training clips in all views, validation clips in one
    assert encoded() == []
    data = Cache.open(cache)
    changed = next(row for row in data.rows if row.actor == 2)
    newest = max(path.stat().st_mtime for path in cache.rglob("*.npy"))
    os.utime(clip_path(cache, changed.id), (newest + 10, newest + 10))
    assert encoded() == [8 * views]


def test_views_are_few_and_near() -> None:
    assert list_views(PAPER)[0] == FaceView()
    assert len(list_views(REFERENCE)) == 12
    for view in list_views(REFERENCE):
        assert find_view(view) == view
    assert find_view(FaceView(True, -4)) == FaceView(True, -7)
    assert find_view(FaceView(True, 3)) == FaceView(True, 0)
    assert find_view(FaceView(False, 9, 0.66)) == FaceView(False, 0, 0.75)
    assert find_view(FaceView(True, 9, 0.0)) == FaceView(light=0.0)
    assert len(list_views(ROBUST)) == 2 * (1 + len(CROP_KINDS))
    for view in list_views(ROBUST):
        assert find_view(view) == view


def test_spoilt_faces_are_the_same_in_every_epoch(cache: Path) -> None:
    data = Cache.open(cache)
    spec = dataclasses.replace(data.spec, encoder="compact")
    torch.manual_seed(0)
    faces = LiveFaces(data, spec, build_model(spec).eval(), "cpu")
    plain, *spoilt = (
        faces.features([Example(1, face=FaceView(fault=fault))]).detach()
        for fault in ("", *CROP_KINDS)
    )
    for kind, features in zip(CROP_KINDS, spoilt, strict=True):
        assert not torch.equal(features, plain), kind
        again = faces.features([Example(1, face=FaceView(fault=kind))]).detach()
        assert torch.equal(features, again), kind
