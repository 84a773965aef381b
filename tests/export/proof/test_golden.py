"""Golden inputs: from the project's own clip, varied, with the reference's answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer import Checkpoint
from mer.evaluate.classifier import NetworkClassifier
from mer_export.proof.golden import golden_inputs, golden_reference, sample_clip
from mer_runtime.feeds import Temperatures
from mer_runtime.golden import Golden, write_golden
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.proof.signals import signal_crop, signal_mfcc
from mer_runtime.spec import AudioSpec, Spec, VideoSpec


@pytest.fixture(scope="module")
def golden() -> Golden:
    return golden_inputs(Spec())


def test_inputs_cover_faces_voices_and_both_missing(golden: Golden) -> None:
    windows = {name: golden.case(i) for i, name in enumerate(golden.cases)}
    assert len(windows) == len(golden.cases) == 12
    heard = {name for name, (voice, _) in windows.items() if voice is not None}
    seen = {name for name, (_, face) in windows.items() if face is not None}
    assert len(heard & seen) == 5
    assert {name for name in windows if name.startswith("face missing")} == heard - seen
    assert {name for name in windows if name.startswith("voice missing")} == seen - heard
    assert len(heard - seen) >= 3
    assert len(seen - heard) >= 3
    clip_voice, clip_face = windows["clip"]
    assert clip_voice is not None
    assert clip_face is not None
    assert clip_voice.shape == (10, 113)
    assert clip_face.shape == (15, 224, 224, 3)
    assert clip_face.std() > 20, "the crops show nothing"
    _, mirrored = windows["mirrored face, quiet voice"]
    _, backwards = windows["backwards, loud voice"]
    _, every = windows["every crop, fast voice"]
    assert mirrored is not None
    assert backwards is not None
    assert every is not None
    np.testing.assert_array_equal(mirrored[0], clip_face[0, :, ::-1])
    np.testing.assert_array_equal(backwards, clip_face[::-1])
    assert len(np.unique(every, axis=0)) == len(golden.crops) == 14


def test_no_two_cases_are_alike(golden: Golden) -> None:
    cases = np.concatenate([golden.mfcc.reshape(12, -1), golden.sequence], axis=1)
    assert len(np.unique(cases, axis=0)) == 12
    assert len(np.unique(golden.crops, axis=0)) == len(golden.crops)


def test_voices_differ_as_they_say(golden: Golden) -> None:
    spec = Spec().audio
    wave = read_window(sample_clip(), Spec()).waveform
    assert wave is not None
    voices = {name: golden.mfcc[golden.cases.index(name)] for name in golden.cases}
    np.testing.assert_array_equal(voices["clip"], compute_mfcc(wave, spec))
    loud = np.minimum(np.maximum(8 * wave, -1), 1)
    np.testing.assert_array_equal(voices["backwards, loud voice"], compute_mfcc(loud, spec))
    assert (np.abs(loud) == 1).mean() > 0.01, "it isn't cut off"
    fast = voices["face missing, fast voice"]
    # What is said takes four fifths of the window; then it is silent.
    assert fast[0, :85].mean() > fast[0, 95:].mean() + 100
    quiet = voices["face missing, quiet voice"]
    assert np.abs(quiet - voices["clip"]).max() > 1


def test_inputs_are_the_same_every_time(golden: Golden) -> None:
    again = golden_inputs(Spec())
    for field in dataclasses.fields(golden):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(golden, field.name))


def test_colour_order_follows_the_spec(golden: Golden) -> None:
    bgr = golden_inputs(Spec.from_dict({"video": {"colour": "bgr"}}))
    np.testing.assert_array_equal(bgr.crops, golden.crops[..., ::-1])


def test_signals_are_of_the_spec() -> None:
    spec = Spec(audio=AudioSpec(sample_rate=22_050), video=VideoSpec(frames=3, size=32, margin=0.2))
    golden = golden_inputs(spec)
    np.testing.assert_array_equal(golden.signal_mfcc, signal_mfcc(spec.audio))
    np.testing.assert_array_equal(golden.signal_crop, signal_crop(spec.video))


def test_reference_is_pytorchs(small_model: Any, answer: Any) -> None:
    model, spec = small_model
    checkpoint = Checkpoint(model, spec, temperatures=Temperatures(1.5, 2.0, 0.5))
    golden = golden_reference(checkpoint)
    assert golden.temperatures == Temperatures(1.5, 2.0, 0.5)
    silence, black = np.zeros(spec.audio.shape, np.float32), np.zeros(spec.video.shape, np.uint8)
    for name in ("clip", "every crop, fast voice", "face missing", "voice missing"):
        i = golden.cases.index(name)
        mfcc, faces = golden.case(i)
        given = silence if mfcc is None else mfcc, black if faces is None else faces
        # Summation order: crops go through the encoder in other batches.
        np.testing.assert_allclose(golden.reference[i], answer(checkpoint, *given), atol=1e-4)
    assert np.ptp(golden.reference, axis=0).max() > 0.1, "all cases give one answer"
    features = NetworkClassifier(checkpoint).encode(golden.crops[[7]])
    np.testing.assert_allclose(golden.features[[7]], features, rtol=1e-4, atol=1e-5)
    assert golden.features.shape == (14, 1024)


def test_set_is_small(golden: Golden, tmp_path: Path) -> None:
    """It travels in every bundle, so it weighs about two megabytes, and a third at 96 pixels."""
    features = np.random.default_rng(0).normal(size=(14, 1024)).astype(np.float32)
    write_golden(tmp_path, dataclasses.replace(golden, features=features))
    assert (tmp_path / "golden.npz").stat().st_size < 2.1e6
    assert sample_clip().stat().st_size < 300_000
