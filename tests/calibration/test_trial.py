"""Answers of candidates against those of the float graphs, on a small encoder and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from mer_calibration import CalibrationError, Quantised, Trial, Window
from mer_calibration.observation import open_session


def test_float_graphs_answer_as_themselves(trial: Trial) -> None:
    assert trial.logits.shape == (4, 8)
    assert np.array_equal(trial.answer(None, None), trial.logits)
    assert np.array_equal(trial.answer(trial.encoder, trial.head), trial.logits)
    assert trial.error(None, None) == 0


def test_crops_are_shown_equally_long(trial: Trial, run_onnx: Callable[..., Any]) -> None:
    """The head takes 4 frames: of 2 crops each is shown twice, of 3 the first, of 4 all once."""
    shown = {1: [0, 0, 0, 0], 2: [0, 0, 1, 1], 3: [0, 0, 1, 2], 4: [0, 1, 2, 3]}
    for window, logits in zip(trial.windows, trial.logits, strict=True):
        features = run_onnx(trial.encoder, {"faces": window.crops})
        feed = {"mfcc": window.mfcc[None], "features": features[shown[len(window.crops)]][None]}
        found = run_onnx(trial.head, feed)[0]
        # Other batches, other orders of sums.
        assert logits == pytest.approx(found, rel=1e-4, abs=1e-5)


def test_error_is_the_mean_square(
    trial: Trial, net: ModelProto, feeds: list[Any], quantise: Callable[..., Quantised]
) -> None:
    candidate = quantise(net, feeds).model
    answer = trial.answer(candidate, None)
    difference = answer.astype(np.float64) - trial.logits
    squares = (difference - difference.mean(axis=1, keepdims=True)) ** 2
    expected = np.mean(squares)
    assert trial.error(candidate, None) == pytest.approx(expected, rel=1e-12)
    assert trial.errors(candidate, None) == pytest.approx(squares.mean(axis=1), rel=1e-12)
    assert 0 < expected < 1e-2 * np.square(trial.logits).mean()


def test_missing_face_costs_nothing(
    trial: Trial,
    net: ModelProto,
    feeds: list[Any],
    quantise: Callable[..., Quantised],
    run_onnx: Callable[..., Any],
) -> None:
    """The head gets the float graph's features of a black crop, whatever the candidate."""
    voice = Window(trial.windows[0].mfcc, None)
    deaf = Trial(trial.encoder, trial.head, [voice], threads=1)
    features = run_onnx(net, {"faces": np.zeros((4, *trial.windows[0].crops.shape[1:]), np.uint8)})
    found = run_onnx(trial.head, {"mfcc": voice.mfcc[None], "features": features[None]})
    # Other batches, other orders of sums.
    assert deaf.logits == pytest.approx(found, rel=1e-4, abs=1e-5)
    assert deaf.error(quantise(net, feeds).model, None) == 0


def test_what_a_window_shows(trial: Trial) -> None:
    window = trial.windows[0]
    assert window.shown == "both"
    assert Window(window.mfcc, None).shown == "audio"
    assert Window(np.zeros_like(window.mfcc), window.crops).shown == "video"


def test_misuse(trial: Trial) -> None:
    with pytest.raises(CalibrationError, match="no window to compare answers on"):
        Trial(trial.encoder, trial.head, [])
    damaged = ModelProto()
    damaged.CopyFrom(trial.head)
    damaged.graph.node[0].op_type = "Unheard"
    with pytest.raises(CalibrationError, match="ONNX Runtime can't load the graph"):
        trial.answer(None, damaged)
    with pytest.raises(CalibrationError, match="ONNX Runtime can't load the graph"):
        open_session(onnx.ModelProto())


def test_inputs_that_do_not_fit(trial: Trial) -> None:
    window = trial.windows[0]
    wrong = Window(window.mfcc[:3], window.crops)
    with pytest.raises(CalibrationError, match=r"window 2 can't be run: .*mfcc") as caught:
        Trial(trial.encoder, trial.head, [window, wrong])
    assert "\n" not in str(caught.value)
