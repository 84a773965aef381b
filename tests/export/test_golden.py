"""Golden inputs: from the project's own clip, varied, with the reference's answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mer import Checkpoint
from mer_export.golden import answer, golden_inputs, golden_reference, sample_clip
from mer_runtime.bundle import write_golden
from mer_runtime.spec import Spec


def test_inputs_cover_faces_voices_and_both_missing() -> None:
    golden = golden_inputs(Spec())
    windows = {name: golden.case(i) for i, name in enumerate(golden.cases)}
    assert windows["face missing"][1] is None
    assert windows["voice missing"][0] is None
    clip_voice, clip_face = windows["clip"]
    assert clip_voice is not None
    assert clip_face is not None
    assert clip_voice.shape == (10, 113)
    assert clip_face.shape == (15, 224, 224, 3)
    assert clip_face.std() > 20, "the crops show nothing"
    mirrored_voice, mirrored_face = windows["mirrored face, quiet voice"]
    assert mirrored_face is not None
    assert mirrored_voice is not None
    np.testing.assert_array_equal(mirrored_face[0], clip_face[0, :, ::-1])
    assert np.abs(mirrored_voice - clip_voice).max() > 1


def test_inputs_are_the_same_every_time() -> None:
    first, second = golden_inputs(Spec()), golden_inputs(Spec())
    np.testing.assert_array_equal(first.crops, second.crops)
    np.testing.assert_array_equal(first.mfcc, second.mfcc)


def test_colour_order_follows_the_spec(small_model: Any) -> None:
    rgb = golden_inputs(Spec())
    bgr = golden_inputs(Spec.from_dict({"video": {"colour": "bgr"}}))
    np.testing.assert_array_equal(bgr.crops, rgb.crops[..., ::-1])


def test_reference_is_pytorchs(small_model: Any) -> None:
    model, spec = small_model
    golden = golden_reference(Checkpoint(model, spec), tolerance=1e-3)
    i = golden.cases.index("face missing")
    expected = answer(Checkpoint(model, spec), golden.mfcc[i], np.zeros(spec.video.shape, np.uint8))
    np.testing.assert_allclose(golden.reference[i], expected, atol=1e-5)  # summation order
    assert np.ptp(golden.reference, axis=0).max() > 0.1, "all cases give one answer"


def test_set_is_small(tmp_path: Any) -> None:
    """It travels in every bundle, so it weighs about a megabyte."""
    write_golden(tmp_path, golden_inputs(Spec()))
    assert (tmp_path / "golden.npz").stat().st_size < 1.3e6
    assert sample_clip().stat().st_size < 300_000
