"""The device's API on real clips, with a real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import (
    BundleError,
    FaceDetectorError,
    MediaError,
    MerWarning,
    MissingModalityError,
    Recognizer,
    SpecError,
)
from mer_runtime.bundle import load_bundle, write_no_face
from mer_runtime.feeds import MODALITIES, Temperatures
from mer_runtime.inputs.face import DETECTOR_VARIABLE
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.model import softmax

pytestmark = [
    pytest.mark.filterwarnings("ignore:the model was trained:mer_runtime.MerWarning"),
    pytest.mark.usefixtures("no_detector_variable"),
]

MakeClip = Callable[..., Path]


def test_predict_tells_everything(recognizer: Recognizer, sample_clip: Path) -> None:
    prediction = recognizer.predict(sample_clip)
    assert prediction.label in recognizer.spec.labels
    assert tuple(prediction.probabilities) == recognizer.spec.labels
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.probabilities[prediction.label] == max(prediction.probabilities.values())
    assert prediction.face
    assert prediction.voice
    assert prediction.settled
    assert prediction.faces_found >= 12
    assert set(prediction.seconds) == {"decode", "face", "mfcc", "inference", "total"}
    assert all(s > 0 for s in prediction.seconds.values())
    assert json.loads(json.dumps(prediction.to_dict()))["source"] == str(sample_clip)


def test_predict_equals_its_parts(recognizer: Recognizer, sample_clip: Path) -> None:
    analysis = recognizer.analyse(sample_clip)
    assert analysis.faces is not None
    assert analysis.window.waveform is not None
    mfcc = compute_mfcc(analysis.window.waveform, recognizer.spec.audio)
    logits = recognizer.infer(mfcc, analysis.faces.crops)
    probabilities = softmax(logits / recognizer.bundle.temperatures.both)
    assert list(analysis.prediction.probabilities.values()) == probabilities.tolist()


def test_clip_without_a_face_is_heard_only(recognizer: Recognizer, make_clip: MakeClip) -> None:
    prediction = recognizer.predict(make_clip())
    assert not prediction.face
    assert prediction.voice
    assert prediction.faces_found == 0


def test_sound_file_is_heard_only(recognizer: Recognizer, make_clip: MakeClip) -> None:
    prediction = recognizer.predict(make_clip("voice.wav"))
    assert (prediction.face, prediction.voice) == (False, True)


@pytest.mark.parametrize("sound", ["none", "silence"])
def test_clip_without_sound_is_seen_only(
    recognizer: Recognizer, make_clip: MakeClip, portrait: NDArray[np.uint8], sound: str
) -> None:
    options = {"audio": False} if sound == "none" else {"waveform": np.zeros(96_000)}
    clip = make_clip("face.mkv", size=(320, 320), picture=portrait, **options)
    prediction = recognizer.predict(clip)
    assert (prediction.face, prediction.voice) == (True, False)


def test_clip_with_neither_is_an_error(recognizer: Recognizer, make_clip: MakeClip) -> None:
    with pytest.raises(MissingModalityError, match="no face was found and there is no sound"):
        recognizer.predict(make_clip(audio=False))


def test_missing_modality_is_raw_zeros(recognizer: Recognizer) -> None:
    spec = recognizer.spec
    mfcc = np.random.default_rng(0).normal(0, 60, spec.audio.shape).astype(np.float32)
    black = np.zeros(spec.video.shape, np.uint8)
    # The bundle's features of a black crop; another batch may sum in another order.
    missing, blackened = recognizer.infer(mfcc, None), recognizer.infer(mfcc, black)
    np.testing.assert_allclose(missing, blackened, rtol=2e-5, atol=1e-5)
    np.testing.assert_array_equal(recognizer.infer(mfcc, None), missing)
    faces = np.random.default_rng(0).integers(0, 256, spec.video.shape, np.uint8)
    silent = np.zeros(spec.audio.shape, np.float32)
    np.testing.assert_array_equal(recognizer.infer(None, faces), recognizer.infer(silent, faces))


def test_missing_face_runs_no_encoder(
    write_tiny_bundle: Callable[..., Path], resign: Callable[..., None]
) -> None:
    """Its features are the bundle's, of the float model, whatever the engine makes of black."""
    folder = write_tiny_bundle()
    width = len(load_bundle(folder).no_face())
    features = np.random.default_rng(0).normal(0, 1, width).astype(np.float32)
    write_no_face(folder, features)
    resign(folder)
    recognizer = Recognizer.load(folder, prove=False)
    spec = recognizer.spec
    mfcc = np.random.default_rng(0).normal(0, 60, spec.audio.shape).astype(np.float32)
    expected = recognizer.classify(mfcc, np.tile(features, (spec.video.frames, 1)))
    np.testing.assert_array_equal(recognizer.infer(mfcc, None), expected)
    black = recognizer.infer(mfcc, np.zeros(spec.video.shape, np.uint8))
    assert np.abs(expected - black).max() > 1e-3


def test_features_of_no_face_of_another_width(
    write_tiny_bundle: Callable[..., Path], resign: Callable[..., None]
) -> None:
    folder = write_tiny_bundle()
    write_no_face(folder, np.zeros(3, np.float32))
    resign(folder)
    with pytest.raises(BundleError, match=r"no_face\.npy has 3 numbers, but its head reads"):
        Recognizer.load(folder)


def test_infer_gives_logits(recognizer: Recognizer) -> None:
    logits = recognizer.infer(np.zeros(recognizer.spec.audio.shape, np.float32), None)
    assert logits.shape == (8,)
    assert logits.dtype == np.float32


def test_infer_refuses_wrong_inputs(recognizer: Recognizer) -> None:
    audio, video = recognizer.spec.audio.shape, recognizer.spec.video.shape
    with pytest.raises(MissingModalityError):
        recognizer.infer(None, None)
    with pytest.raises(SpecError, match=r"mfcc must be \(10, 113\) float32"):
        recognizer.infer(np.zeros(audio, np.float64), None)
    with pytest.raises(SpecError, match="mfcc must be"):
        recognizer.infer(np.zeros((audio[0], 5), np.float32), None)
    with pytest.raises(SpecError, match="faces must be"):
        recognizer.infer(None, np.zeros(video, np.float32))
    with pytest.raises(SpecError, match="not finite"):
        recognizer.infer(np.full(audio, np.nan, np.float32), None)


def test_encode_and_classify_make_infer(recognizer: Recognizer) -> None:
    """A stream encodes crop by crop."""
    generator = np.random.default_rng(3)
    faces = generator.integers(0, 256, recognizer.spec.video.shape, np.uint8)
    mfcc = generator.normal(0, 60, recognizer.spec.audio.shape).astype(np.float32)
    features = np.concatenate([recognizer.encode(face[None]) for face in faces])
    assert features.shape == (15, recognizer.backend.feature_width)
    assert features.dtype == np.float32
    for voice in (mfcc, None):
        # Another batch may sum in another order.
        np.testing.assert_allclose(
            recognizer.classify(voice, features), recognizer.infer(voice, faces), atol=1e-4
        )
    np.testing.assert_array_equal(recognizer.classify(mfcc, None), recognizer.infer(mfcc, None))


def test_encode_refuses_wrong_crops(recognizer: Recognizer) -> None:
    crop = recognizer.spec.video.shape[1:]
    for count in (0, 16):
        with pytest.raises(SpecError, match=f"faces must be 1 to 15 crops, not {count}"):
            recognizer.encode(np.zeros((count, *crop), np.uint8))
    with pytest.raises(SpecError, match="faces must be 1 to 15 crops, not 0"):
        recognizer.encode(np.array(0, np.uint8))
    with pytest.raises(SpecError, match=r"faces must be \(2, 224, 224, 3\) uint8, not"):
        recognizer.encode(np.zeros((2, 224, 224, 1), np.uint8))
    with pytest.raises(SpecError, match=r"uint8, not \(2, 224, 224, 3\) float32"):
        recognizer.encode(np.zeros((2, *crop), np.float32))
    with pytest.raises(SpecError, match="faces must be"):
        recognizer.encode(np.zeros(crop, np.uint8))


def test_classify_refuses_wrong_inputs(recognizer: Recognizer) -> None:
    width = recognizer.backend.feature_width
    with pytest.raises(MissingModalityError):
        recognizer.classify(None, None)
    with pytest.raises(SpecError, match=rf"features must be \(15, {width}\) float32"):
        recognizer.classify(None, np.zeros((14, width), np.float32))
    with pytest.raises(SpecError, match="features must be"):
        recognizer.classify(None, np.zeros((15, width)))
    with pytest.raises(SpecError, match="features holds values that are not finite"):
        recognizer.classify(None, np.full((15, width), np.inf, np.float32))
    with pytest.raises(SpecError, match="mfcc must be"):
        recognizer.classify(np.zeros((1, 1), np.float32), np.zeros((15, width), np.float32))


def of_one(shown: str, temperature: float) -> Temperatures:
    """One for what is shown, and another for all else."""
    return Temperatures(**(dict.fromkeys(MODALITIES, 7.0) | {shown: temperature}))


@pytest.mark.parametrize("temperature", [0.25, 1, 4.0])
def test_temperature_spreads_probabilities(
    temperature: float, write_tiny_bundle: Callable[..., Path], make_clip: MakeClip, tiny_model: Any
) -> None:
    recognizer = Recognizer.load(
        write_tiny_bundle(temperatures=of_one("audio", temperature).to_dict())
    )
    clip = make_clip("voice.wav")
    prediction = recognizer.predict(clip)
    waveform = read_window(clip, recognizer.spec).waveform
    assert waveform is not None
    mfcc = compute_mfcc(waveform, recognizer.spec.audio)
    black = tiny_model.encode(np.zeros(recognizer.spec.video.shape, np.uint8))
    logits = tiny_model.classify(mfcc, black)
    np.testing.assert_allclose(recognizer.infer(mfcc, None), logits, atol=1e-4)  # left as they are
    powers = np.exp(logits / temperature)
    expected = powers / powers.sum()
    assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-4)
    assert prediction.label == recognizer.spec.labels[int(logits.argmax())]


def test_threads_change_no_answer(bundle: Path) -> None:
    faces = np.random.default_rng(1).integers(0, 256, (15, 224, 224, 3), np.uint8)
    one, two = (Recognizer.load(bundle, threads=n).infer(None, faces) for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-4)  # sums are split differently
    wrong: Any
    for wrong in (0, 2.5, "2"):
        with pytest.raises(SpecError, match="threads must be a whole number of at least 1"):
            Recognizer.load(bundle, threads=wrong)


def test_self_test_passes_here_and_notices_other_answers(bundle: Path, wrong_bundle: Path) -> None:
    assert Recognizer.load(bundle).self_test().passed
    with pytest.raises(BundleError, match="is off its golden answers by 1, more than"):
        Recognizer.load(wrong_bundle)
    result = Recognizer.load(wrong_bundle, prove=False).self_test()
    assert not result.passed
    assert result.max_difference == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("choice", ["auto", "openvino"])
def test_another_engine(choice: Any, write_tiny_bundle: Callable[..., Path]) -> None:
    pytest.importorskip("openvino")
    recognizer = Recognizer.load(write_tiny_bundle(), threads=1, backend=choice)
    considered = [name.split()[0] for name in recognizer.considered]
    assert considered == (["onnxruntime", "openvino"] if choice == "auto" else [])
    if choice != "auto":
        assert recognizer.backend.name.startswith(choice)
    with pytest.raises(BundleError, match="tensorrt can't run a bundle for onnx"):
        Recognizer.load(recognizer.bundle.path, backend="tensorrt")


def test_detector_unlike_the_trained_one_is_told(
    bundle: Path, sample_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DETECTOR_VARIABLE, "haar")
    recognizer = Recognizer.load(bundle)
    with pytest.warns(MerWarning, match="trained on faces found by yunet, here haar"):
        recognizer.predict(sample_clip)


@pytest.mark.filterwarnings("error::mer_runtime.MerWarning")
def test_yunet_without_being_asked_by_argument_or_variable(
    bundle: Path, sample_clip: Path, yunet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Recognizer.load(bundle, detector=yunet).predict(sample_clip)
    monkeypatch.setenv(DETECTOR_VARIABLE, str(yunet))
    named = Recognizer.load(bundle).predict(sample_clip)
    monkeypatch.delenv(DETECTOR_VARIABLE)
    unasked = Recognizer.load(bundle).predict(sample_clip)
    assert given.probabilities == named.probabilities == unasked.probabilities


def test_bad_detector_is_refused_at_once(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(FaceDetectorError, match="no such face detector"):
        Recognizer.load(bundle, detector=tmp_path / "none.onnx")


def test_clip_that_is_none(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "letter.mp4").write_text("Dear reader")
    with pytest.raises(MediaError, match=r"letter\.mp4"):
        recognizer.predict(tmp_path / "letter.mp4")


def test_bundle_of_another_format(write_tiny_bundle: Callable[..., Path]) -> None:
    """One graph, as bundles were before the first release."""
    folder = write_tiny_bundle(format=4, graphs={"clip": "encoder.onnx"})
    with pytest.raises(BundleError, match=r"bundle format 4 needs another version .*reads 1"):
        Recognizer.load(folder)


@pytest.mark.corpus
def test_whole_actor_of_the_stand_in(recognizer: Recognizer, corpus: Path) -> None:
    for clip in sorted((corpus / "Actor_21").glob("*.mp4"))[::15]:
        prediction = recognizer.predict(clip)
        assert prediction.voice
        assert np.isfinite(list(prediction.probabilities.values())).all()
