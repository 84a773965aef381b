"""Scores of checkpoints and bundles, recomputed by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mer import Checkpoint, load_checkpoint, save_checkpoint
from mer.data.cache import Cache
from mer.data.presence import make_noise_crops, make_noise_mfcc
from mer.errors import CacheError, CheckpointError, CorpusError, TrainingError
from mer.evaluate.confidence import expected_calibration_error
from mer.evaluate.evaluation import evaluate_model
from mer.models import Standardiser, build_model
from mer_export import ExportOptions
from mer_export.exporter import export_bundle
from mer_runtime.errors import BundleError, MissingModalityError
from mer_runtime.feeds import Temperatures
from mer_runtime.spec import AudioSpec, Spec, VideoSpec

Write = Callable[..., Path]

SILENT, FACELESS = "01-01-02-01-01-01-05", "01-01-04-01-01-01-05"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the networks are tiny


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Write) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cache"
    return write_cache(folder, without_voice=[SILENT], without_face=[FACELESS])


@pytest.fixture(scope="module")
def checkpoint(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that have seen the cache's clips, so that answers differ from clip to clip."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    data = Cache.open(cache)
    audio = dataclasses.replace(data.spec.audio, mean=(-50.0,) * 10, std=(80.0,) * 10)
    # BGR, which the evaluation must turn the cache's RGB into.
    video = dataclasses.replace(data.spec.video, colour="bgr", mean=(0.4,) * 3, std=(0.2,) * 3)
    spec = dataclasses.replace(data.spec, encoder="compact", audio=audio, video=video)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(spec)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        mfcc = torch.from_numpy(np.stack([data.mfcc(i, audio) for i in range(32)]))
        crops = torch.from_numpy(np.stack([data.crops(i) for i in range(32)]))
        inputs = Standardiser(spec)(mfcc, crops)
        model(*inputs)
        model.eval()
        model.classifier_1[0].weight.mul_(2 / model(*inputs).std())
    save_checkpoint(path, model, spec, temperatures=Temperatures(1.5, 2.0, 0.75))
    return path


def recompute(
    checkpoint: Checkpoint, cache: Path, modality: str, actor: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes of an actor's clips, with no code of the evaluation's."""
    data = Cache.open(cache)
    logits, classes = [], []
    for i, row in enumerate(data.rows):
        if row.actor != actor:
            continue
        mfcc = torch.from_numpy(data.mfcc(i, checkpoint.spec.audio))
        crops = torch.from_numpy(data.crops(i)[..., ::-1].copy())  # to BGR
        mfcc = torch.zeros_like(mfcc) if modality == "video" else mfcc
        crops = torch.zeros_like(crops) if modality == "audio" else crops
        with torch.no_grad():
            inputs = Standardiser(checkpoint.spec)(mfcc[None], crops[None])
            logits.append(checkpoint.model(*inputs)[0].numpy())
        classes.append(row.emotion)
    return np.stack(logits), np.array(classes)


@pytest.mark.parametrize("modality", ["both", "audio", "video"])
def test_checkpoint_scores(modality: str, cache: Path, checkpoint: Path) -> None:
    result = evaluate_model(checkpoint, cache, modality=modality)
    logits, classes = recompute(load_checkpoint(checkpoint), cache, modality)
    assert result.scores.n == len(classes) == 8
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(classes))
    assert result.scores.loss == pytest.approx(loss.item(), rel=1e-4)  # float32, other batches
    assert result.scores.prec1 == 100 * (logits.argmax(axis=1) == classes).mean()
    expected = np.zeros((8, 8), int)
    np.add.at(expected, (classes, logits.argmax(axis=1)), 1)
    assert (result.scores.confusion == expected).all()
    assert (result.kind, result.split, result.feed.modality) == ("checkpoint", "test", modality)
    assert result.corpus == Cache.open(cache).digest


def test_modality_makes_a_difference(cache: Path, checkpoint: Path) -> None:
    losses = {
        evaluate_model(checkpoint, cache, modality=m).scores.loss
        for m in ("both", "audio", "video")
    }
    assert len(losses) == 3


def test_noise_in_place_of_a_modality(cache: Path, checkpoint: Path) -> None:
    """Scores by hand, with the noise that ``mer.data.presence`` makes of each clip's name."""
    loaded, data = load_checkpoint(checkpoint), Cache.open(cache)
    spec = loaded.spec
    for name, feed in (("face", {"face": "noise"}), ("voice", {"voice": "noise"})):
        result = evaluate_model(checkpoint, cache, **feed)
        rows = data.select("test")
        for row, logits in zip(rows, result.logits, strict=True):
            clip = data.rows[row].id
            mfcc, crops = data.mfcc(row, spec.audio), data.crops(row)[..., ::-1].copy()
            if name == "face":
                crops = make_noise_crops(spec.video, clip)
            else:
                mfcc = make_noise_mfcc(spec.audio, clip)
            inputs = Standardiser(spec)(torch.from_numpy(mfcc)[None], torch.from_numpy(crops)[None])
            with torch.no_grad():
                expected = loaded.model(*inputs)[0].numpy()
            np.testing.assert_allclose(logits, expected, atol=2e-4)  # float32, logits of up to 7
        assert result.to_dict()[name] == "noise"
        assert result.to_dict()["modality"] == "both"
    with pytest.raises(MissingModalityError):
        evaluate_model(checkpoint, cache, modality="audio", voice="missing")


def test_splits_are_by_actor(cache: Path, checkpoint: Path) -> None:
    n = {
        split: evaluate_model(checkpoint, cache, split=split).scores.n
        for split in ("train", "validation", "test", "all")
    }
    assert n == {"train": 16, "validation": 8, "test": 8, "all": 32}
    fold = evaluate_model(checkpoint, cache, split="test", fold=5)
    assert (fold.scores.n, fold.fold) == (8, 5)  # actor 1 alone of {1, 4, 9, 22}


@pytest.mark.slow
def test_bundle_scores_as_its_checkpoint(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    export_bundle(checkpoint, bundle, ExportOptions(precision="fp32", timing=False))
    for modality in ("both", "audio", "video"):
        ours = evaluate_model(checkpoint, cache, modality=modality)
        theirs = evaluate_model(bundle, cache, modality=modality)
        assert theirs.kind == "bundle"
        # The gate lets logits differ by 1e-3.
        assert theirs.scores.loss == pytest.approx(ours.scores.loss, abs=2e-3)
        assert (theirs.scores.confusion == ours.scores.confusion).all()
        assert theirs.temperature == ours.temperature
        assert ours.temperature == {"both": 1.5, "audio": 2.0, "video": 0.75}[modality]


def test_json_is_plain_data(cache: Path, checkpoint: Path) -> None:
    data = evaluate_model(checkpoint, cache).to_dict()
    assert list(data)[:5] == ["n", "loss", "prec1", "prec5", "uar"]
    assert list(data["per_class"]) == data["labels"] == list(Spec().labels)
    assert sum(map(sum, data["confusion"])) == data["n"] == 8
    assert 0 <= data["ece"] <= 100
    assert data["temperature"] == 1.5
    for name in ("prec1", "prec5", "uar"):
        low, high = data["intervals"][name]
        assert 0 <= low <= data[name] <= high <= 100
    recalls = [one["recall"] for one in data["per_class"].values()]
    assert data["uar"] == pytest.approx(np.mean(recalls), abs=1e-3)


def test_ece_is_at_the_model_s_temperature(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    warm = tmp_path / "warm.safetensors"
    save_checkpoint(warm, loaded.model, loaded.spec, temperatures=Temperatures.read(3.0))
    plain, warmed = (evaluate_model(path, cache) for path in (checkpoint, warm))
    for one, temperature in ((plain, 1.5), (warmed, 3.0)):
        expected = expected_calibration_error(one.logits, one.targets, temperature=temperature)
        assert (one.temperature, one.ece) == (temperature, expected)
    assert plain.ece != warmed.ece
    assert plain.scores.loss == warmed.scores.loss  # of the logits as they are


def test_answers_that_are_not_finite(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    with torch.no_grad():  # each of its weights is finite; their sums aren't
        loaded.model.classifier_1[0].weight.fill_(3e38)
    save_checkpoint(tmp_path / "large.safetensors", loaded.model, loaded.spec)
    with pytest.raises(CheckpointError, match="not finite"):
        evaluate_model(tmp_path / "large.safetensors", cache)


def test_model_that_the_cache_does_not_suit(cache: Path, tmp_path: Path) -> None:
    specs = {
        "audio.sample_rate": Spec(AudioSpec(sample_rate=22_050), VideoSpec(frames=3, size=32)),
        "video.size": Spec(video=VideoSpec(frames=3, size=64)),
        "video.detector": Spec(video=VideoSpec(frames=3, size=32, detector="haar")),
    }
    for name, spec in specs.items():
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(path, build_model(spec), spec)
        with pytest.raises(CacheError, match=name):
            evaluate_model(path, cache)
    few = Spec(video=VideoSpec(frames=3, size=32), labels=("sad", "happy"))
    save_checkpoint(tmp_path / "few.safetensors", build_model(few), few)
    with pytest.raises(CacheError, match="clips of angry, calm"):
        evaluate_model(tmp_path / "few.safetensors", cache)


def test_other_refusals(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        evaluate_model(tmp_path / "none.pt", cache)
    with pytest.raises(BundleError, match="not a bundle"):
        evaluate_model(tmp_path, cache)
    with pytest.raises(CacheError, match="no cache"):
        evaluate_model(checkpoint, tmp_path)
    with pytest.raises(CorpusError, match="no actor"):
        evaluate_model(checkpoint, cache, fold=4)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="no cuda device"):
            evaluate_model(checkpoint, cache, device="cuda")


def test_classes_are_told_by_name(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    """The same network with its classes in another order is as often right."""
    found = load_checkpoint(checkpoint)
    turned = tuple(reversed(found.spec.labels))
    with torch.no_grad():
        last = found.model.classifier_1[0]
        last.weight.copy_(last.weight.flip(0))
        last.bias.copy_(last.bias.flip(0))
    other = tmp_path / "turned.safetensors"
    save_checkpoint(other, found.model, dataclasses.replace(found.spec, labels=turned))
    before, after = evaluate_model(checkpoint, cache), evaluate_model(other, cache)
    assert after.labels == turned
    assert after.scores.prec1 == before.scores.prec1
    assert (after.scores.confusion == before.scores.confusion[::-1, ::-1]).all()


def test_classes_that_the_model_lacks_are_named(
    cache: Path, checkpoint: Path, tmp_path: Path
) -> None:
    found = load_checkpoint(checkpoint)
    names = ("bored", *found.spec.labels[1:])
    other = tmp_path / "bored.safetensors"
    save_checkpoint(other, found.model, dataclasses.replace(found.spec, labels=names))
    with pytest.raises(CacheError, match=r"clips of neutral, .*it answers bored"):
        evaluate_model(other, cache)
