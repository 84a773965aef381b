"""Training on a small cache: it learns, keeps its promises, and goes on where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mer import load_checkpoint
from mer.checkpoint import load_encoder
from mer.data.augmentation import Example, FaceView
from mer.data.cache import Cache
from mer.data.dataset import LiveFaces, Voices, measure_standardisation, read_crops
from mer.data.features import FrozenFaces, find_view, list_views
from mer.data.index import clip_path
from mer.data.spoiling import CROP_KINDS
from mer.errors import CacheError, CheckpointError, CorpusError, TrainingError
from mer.evaluate.confidence import (
    describe_confidence,
    expected_calibration_error,
    fit_temperature,
)
from mer.evaluate.evaluation import evaluate_model
from mer.models import EfficientFace, Standardiser, build_model
from mer.protocols import (
    BALANCED,
    PAPER,
    PROTOCOLS,
    REFERENCE,
    ROBUST,
    TUNED,
    ModalityDropout,
)
from mer.train.distillation import Distillation, compare_logits
from mer.train.learner import make_optimizer, make_scheduler
from mer.train.runs import find_best, is_better
from mer.train.teacher import ClipTeacher
from mer.train.training import train_model
from mer.weights import shipped_checkpoint
from mer_runtime.errors import OutputError, SpecError

Write = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the networks are tiny


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Write) -> Path:
    """Two actors train; features of a frozen encoder gather here from test to test."""
    folder = tmp_path_factory.mktemp("data") / "cache"
    return write_cache(folder, without_face=["01-01-03-01-01-01-01"])


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder that has seen a few colours, so that its features tell colours apart."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        encoder = EfficientFace()
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0  # keep the last batch's statistics
        encoder(torch.rand(64, 3, 1, 1) + torch.rand(64, 3, 32, 32) / 4)
        save_file(encoder.state_dict(), path)
    return path


def read_metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_paper_protocol_is_the_paper_s() -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = make_optimizer(model, PAPER)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["dampening"]) == (0.04, 0.9, 0)
    assert (group["weight_decay"], group["nesterov"]) == (1e-3, False)
    assert (PAPER.epochs, PAPER.batch_size) == (100, 8)
    scheduler = make_scheduler(optimizer, PAPER)
    rates = []
    for loss in [1.0, *[2.0] * 12]:  # the best epoch, then a plateau
        scheduler.step(loss)
        rates.append(round(group["lr"], 6))
    assert rates == [0.04] * 11 + [0.004] * 2


def test_reference_protocol_is_the_public_code_s() -> None:
    optimizer = make_optimizer(torch.nn.Linear(1, 1), REFERENCE)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["dampening"]) == (0.04, 0.9, 0.9)
    assert group["weight_decay"] == 1e-3
    scheduler = make_scheduler(optimizer, REFERENCE)
    rates = {}
    for epoch in range(1, 101):
        rates[epoch] = group["lr"]
        optimizer.step()
        scheduler.step()
    drops = [epoch for epoch in range(2, 101) if rates[epoch] < 0.5 * rates[epoch - 1]]
    assert drops == [40, 55, 65, 70]
    assert rates[100] == pytest.approx(0.04e-4)


def test_learns_and_writes_what_it_says(cache: Path, encoder: Path, tmp_path: Path) -> None:
    rows = []
    run = tmp_path / "run"
    summary = train_model(
        cache,
        run,
        encoder=encoder,
        freeze="encoder",
        epochs=15,
        batch_size=4,
        report=rows.append,
    )
    # Eight classes: chance is 12.5.
    assert summary.best["validation_prec1"] >= 50
    assert summary.epochs == len(rows) == 15
    written = read_metrics(run)
    assert [row["epoch"] for row in written] == [str(n) for n in range(1, 16)]
    assert float(written[-1]["validation_loss"]) == rows[-1]["validation_loss"]
    assert float(written[0]["lr"]) == 0.04
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.glob("*.part*"))
    kept = json.loads((run / "run.json").read_text())
    settings = kept["settings"]
    assert settings["protocol"]["optimizer"]["kind"] == "Sgd"
    checkpoint = load_checkpoint(run / "best.safetensors")
    assert checkpoint.notes["metrics"] == find_best(rows) == summary.best
    assert checkpoint.notes["corpus"] == Cache.open(cache).digest
    assert len(checkpoint.notes["splits"]) == len(checkpoint.notes["encoder"]) == 64
    # Training scored cached features; here the file's own encoder sees the crops.
    evaluated = evaluate_model(run / "best.safetensors", cache, split="validation")
    scores = evaluated.scores
    assert scores.prec1 == summary.best["validation_prec1"]
    assert scores.loss == pytest.approx(summary.best["validation_loss"], abs=1e-4)
    # The temperatures are those of the best epoch, not of the last.
    assert list(summary.confidence) == ["both", "audio", "video"]
    for shown, confidence in summary.confidence.items():
        evaluated = evaluate_model(
            run / "best.safetensors", cache, split="validation", modality=shown
        )
        fitted = checkpoint.temperatures.of(shown)
        assert fitted == evaluated.temperature == confidence.temperature
        before = expected_calibration_error(evaluated.logits, evaluated.targets)
        assert confidence.ece_before == pytest.approx(before, abs=0.1)  # in points
        assert evaluated.ece == pytest.approx(confidence.ece, abs=0.1)
        if fitted != 1:
            temperature = fit_temperature(evaluated.logits, evaluated.targets)
            assert fitted == pytest.approx(temperature, rel=1e-3)
    told = describe_confidence(summary.confidence)
    assert kept["results"] == {"best": summary.best, "confidence": told}
    assert checkpoint.notes["confidence"] == told


@pytest.mark.parametrize(
    ("protocol", "fusion"), [("paper", "ia"), ("reference-optimiser", "it"), ("tuned", "lt")]
)
def test_every_protocol_and_every_fusion_trains(
    protocol: str, fusion: str, cache: Path, encoder: Path, tmp_path: Path
) -> None:
    heads = 1 if fusion == "ia" else 4
    summary = train_model(
        cache,
        tmp_path / "run",
        fusion=fusion,
        protocol=protocol,
        num_heads=heads,
        n_mfcc=13,
        encoder=encoder,
        freeze="encoder",
        epochs=1,
    )
    spec = load_checkpoint(summary.checkpoint).spec
    assert (spec.fusion, spec.num_heads, spec.audio.n_mfcc) == (fusion, heads, 13)


def test_live_encoder_learns_too(cache: Path, encoder: Path, tmp_path: Path) -> None:
    summary = train_model(cache, tmp_path / "run", encoder=encoder, epochs=1)
    trained = load_checkpoint(summary.checkpoint).model.visual_model.state_dict()
    before = load_encoder(encoder)
    assert not torch.equal(
        trained["stage3.0.branch1.0.weight"], before["stage3.0.branch1.0.weight"]
    )
    assert not torch.equal(trained["conv1.1.running_mean"], before["conv1.1.running_mean"])


@pytest.mark.parametrize("freeze", ["encoder", None])
def test_bf16_steps_learn_the_same(
    cache: Path, encoder: Path, tmp_path: Path, freeze: str | None
) -> None:
    """Factors of 8 bits each, sums and weights of 24: not the same figures, but near them.

    ``balanced`` shows every clip without its face, too: a frozen encoder then runs within a step.
    """
    runs = {}
    for bf16 in (False, True):
        out = tmp_path / str(bf16)
        train_model(
            cache, out, protocol="balanced", encoder=encoder, freeze=freeze, epochs=1, bf16=bf16
        )
        runs[bf16] = [float(row["train_loss"]) for row in read_metrics(out)]
        best = load_checkpoint(out / "best.safetensors")
        assert {w.dtype for w in best.model.parameters()} == {torch.float32}
        assert best.notes["bf16"] is bf16
    assert runs[True] != runs[False]
    # From the same weights, rounded to 1 / 256 at most.
    assert runs[True] == pytest.approx(runs[False], rel=1 / 64)
    with pytest.raises(TrainingError, match="bf16"):
        train_model(
            cache, out, protocol="balanced", encoder=encoder, freeze=freeze, epochs=2, resume=True
        )


@pytest.mark.parametrize("protocol", ["paper", "tuned"])
def test_frozen_encoder_stays_as_it_was(
    protocol: str, cache: Path, encoder: Path, tmp_path: Path
) -> None:
    summary = train_model(
        cache, tmp_path / "run", protocol=protocol, encoder=encoder, freeze="encoder", epochs=2
    )
    trained = load_checkpoint(summary.checkpoint).model.visual_model.state_dict()
    for name, weight in load_encoder(encoder).items():
        assert torch.equal(trained[name], weight), name
    # A checkpoint of ours is an encoder file as well.
    assert load_encoder(summary.checkpoint).keys() == load_encoder(encoder).keys()


def test_resumed_run_equals_an_unbroken_one(cache: Path, encoder: Path, tmp_path: Path) -> None:
    options = {"encoder": encoder, "freeze": "encoder", "protocol": "tuned", "epochs": 4}
    train_model(cache, tmp_path / "whole", **options)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(cache, tmp_path / "broken", report=stop, **options)
    assert len(read_metrics(tmp_path / "broken")) == 2
    train_model(cache, tmp_path / "broken", resume=True, **options)
    assert read_metrics(tmp_path / "broken") == read_metrics(tmp_path / "whole")
    whole, broken = (
        load_checkpoint(tmp_path / run / "best.safetensors") for run in ("whole", "broken")
    )
    assert whole.temperatures == broken.temperatures
    assert whole.notes == broken.notes
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, broken.model.state_dict()[name]), name
    # Nothing is left to do, and nothing changes.
    best = (tmp_path / "whole" / "best.safetensors").read_bytes()
    train_model(cache, tmp_path / "whole", resume=True, **options)
    assert (tmp_path / "whole" / "best.safetensors").read_bytes() == best


def test_plateau_survives_a_resume_and_more_epochs(
    cache: Path, encoder: Path, tmp_path: Path
) -> None:
    options = {"encoder": encoder, "freeze": "encoder"}
    train_model(cache, tmp_path / "whole", epochs=3, **options)
    train_model(cache, tmp_path / "longer", epochs=1, **options)
    train_model(cache, tmp_path / "longer", epochs=3, resume=True, **options)
    assert read_metrics(tmp_path / "longer") == read_metrics(tmp_path / "whole")


def test_seed_matters(cache: Path, encoder: Path, tmp_path: Path) -> None:
    options = {"encoder": encoder, "freeze": "encoder", "epochs": 1}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_model(cache, tmp_path / name, seed=seed, **options)
    assert read_metrics(tmp_path / "a") == read_metrics(tmp_path / "b")
    assert read_metrics(tmp_path / "a") != read_metrics(tmp_path / "c")


def test_run_that_is_there_is_not_overwritten(cache: Path, encoder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = {"encoder": encoder, "freeze": "encoder", "epochs": 1}
    train_model(cache, run, **options)
    before = (run / "best.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="--resume"):
        train_model(cache, run, **options)
    with pytest.raises(TrainingError, match=r"seed 1, not 2"):
        train_model(cache, run, resume=True, seed=2, **options)
    with pytest.raises(TrainingError, match=r"protocol.learning_rate 0.04, not 0.1"):
        train_model(cache, run, resume=True, learning_rate=0.1, **options)
    assert (run / "best.safetensors").read_bytes() == before
    (run / "last.pt").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(TrainingError, match=r"last\.pt is damaged"):
        train_model(cache, run, resume=True, **options)


def test_loss_that_is_not_finite_names_the_epoch(
    cache: Path, encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"not finite in epoch [12], batch \d+"):
        train_model(
            cache,
            tmp_path / "run",
            encoder=encoder,
            freeze="encoder",
            learning_rate=1e30,
            epochs=2,
        )
    assert not list((tmp_path / "run").glob("*.part*"))


def test_frozen_encoder_is_the_shipped_one_by_default(cache: Path, tmp_path: Path) -> None:
    summary = train_model(cache, tmp_path / "run", freeze="encoder", epochs=1)
    trained = load_checkpoint(summary.checkpoint).model.visual_model.state_dict()
    shipped = load_checkpoint(shipped_checkpoint()).model.visual_model.state_dict()
    for name in EfficientFace().state_dict():
        assert torch.equal(trained[name], shipped[name]), name


def test_voice_alone_needs_no_face_features(
    write_cache: Write, encoder: Path, tmp_path: Path
) -> None:
    stages: set[str] = set()
    train_model(
        write_cache(tmp_path / "cache"),
        tmp_path / "run",
        modality="audio",
        encoder=encoder,
        freeze="encoder",
        epochs=1,
        progress=lambda stage, done, total: stages.add(stage),
    )
    assert stages == {"training"}


def test_what_can_t_start(cache: Path, encoder: Path, tmp_path: Path, write_cache: Write) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="no protocol 'other': paper, reference-optimiser"):
        train_model(cache, run, protocol="other")
    with pytest.raises(TrainingError, match="epochs must be above 0"):
        train_model(cache, run, epochs=0)
    with pytest.raises(CheckpointError, match="no such file"):
        train_model(cache, run, encoder=tmp_path / "none.safetensors")
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="no cuda device"):
            train_model(cache, run, device="cuda")
    with pytest.raises(CorpusError, match="validation"):
        train_model(write_cache(tmp_path / "few", actors=(1, 2)), run)
    assert not run.exists()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match="can't write"):
        train_model(cache, file / "run", encoder=encoder, freeze="encoder", epochs=1)


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


def test_smaller_crops_come_from_the_same_cache(cache: Path, encoder: Path, tmp_path: Path) -> None:
    summary = train_model(
        cache, tmp_path / "run", size=16, face_encoder="compact", epochs=1, protocol=TUNED
    )
    spec = load_checkpoint(summary.checkpoint).spec
    assert spec.video.size == 16
    data = Cache.open(cache)
    crops = read_crops(data, 0, spec)
    assert crops.shape == (3, 16, 16, 3)
    means = data.crops(0).reshape(3, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(crops - means).max() <= 0.5  # averaged over areas, rounded
    with pytest.raises(CacheError, match=r"video\.size is 32, not 64"):
        train_model(cache, tmp_path / "larger", size=64, encoder=encoder, epochs=1)


def test_mfcc_settings_can_be_asked_for(cache: Path, tmp_path: Path) -> None:
    summary = train_model(
        cache, tmp_path / "run", modality="audio", face_encoder="compact", epochs=1,
        protocol=TUNED, n_mfcc=13, n_fft=1024, hop_length=256, n_mels=40,
    )  # fmt: skip
    audio = load_checkpoint(summary.checkpoint).spec.audio
    assert (audio.n_mfcc, audio.n_fft, audio.hop_length, audio.n_mels) == (13, 1024, 256, 40)
    assert len(audio.mean) == 13
    with pytest.raises(SpecError, match="n_mfcc must be a whole number from 1 to 40"):
        train_model(cache, tmp_path / "wrong", n_mfcc=41, n_mels=40)


def test_fine_tuning_starts_from_a_checkpoint(
    cache: Path, encoder: Path, tmp_path: Path, write_cache: Write
) -> None:
    first = train_model(
        cache, tmp_path / "first", encoder=encoder, freeze="encoder", epochs=2, protocol=TUNED
    )
    before = load_checkpoint(first.checkpoint).model.state_dict()
    still = dataclasses.replace(TUNED, learning_rate=1e-12, weight_decay=0.0, ema_decay=None)
    second = train_model(
        cache, tmp_path / "second", start=first.checkpoint, freeze="encoder", epochs=1,
        protocol=still, seed=9,
    )  # fmt: skip
    after = load_checkpoint(second.checkpoint).model.state_dict()
    for name, weight in before.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(after[name], weight, msg=name)
    with pytest.raises(TrainingError, match="fusion ia, not lt"):
        train_model(cache, tmp_path / "x", fusion="lt", start=first.checkpoint, epochs=1)


def test_student_learns_from_a_teacher(cache: Path, encoder: Path, tmp_path: Path) -> None:
    """The loss is the teacher's alone: the student comes to answer as it does."""
    first = train_model(
        cache, tmp_path / "teacher", encoder=encoder, freeze="encoder", protocol=BALANCED, epochs=10
    )
    plan = dataclasses.replace(BALANCED, epochs=5, batch_size=8, ema_decay=None)
    runs = {
        share: train_model(
            cache, tmp_path / f"student-{share}", face_encoder="compact", protocol=plan,
            teacher=first.checkpoint, distillation=Distillation(logits=share),
        )
        for share in (0.0, 1.0)
    }  # fmt: skip
    settings = json.loads((tmp_path / "student-1.0" / "run.json").read_text())["settings"]
    assert settings["distillation"] == {"logits": 1.0, "features": 1.0, "temperature": 2.0}
    data = Cache.open(cache)
    rows = data.select("train")

    def ask(checkpoint: Path) -> torch.Tensor:
        found = load_checkpoint(checkpoint)
        teacher = ClipTeacher(found, data, data.spec, "cpu")
        teacher.prepare(rows, [FaceView()])
        return teacher.logits([Example(row) for row in rows])

    wanted = ask(first.checkpoint)
    missed = {
        share: compare_logits(ask(run.checkpoint), wanted, 2.0).item()
        for share, run in runs.items()
    }
    assert missed[1.0] < missed[0.0]


def test_best_is_highest_prec1_then_lowest_loss_then_first() -> None:
    rows = [
        {"epoch": float(n), "validation_prec1": prec1, "validation_loss": loss}
        for n, (prec1, loss) in enumerate([(50, 1.0), (60, 1.5), (60, 1.4), (60, 1.4), (55, 0.1)])
    ]
    assert find_best(rows) == rows[2]
    assert not is_better(rows[3], rows[2])
    assert find_best([]) is None


def test_best_is_the_highest_average_of_what_was_validated() -> None:
    rows = [
        {"validation_prec1": both, "validation_audio_prec1": voice, "validation_video_prec1": face}
        | {"validation_loss": 1.0}
        for both, voice, face in ((70, 40, 40), (68, 50, 45), (69, 44, 46))
    ]
    assert find_best(rows) == rows[1]


def test_protocols_are_named_and_serialisable() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        json.dumps(dataclasses.asdict(protocol))
    assert isinstance(PAPER.missing, ModalityDropout)
