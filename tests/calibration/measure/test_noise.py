"""What rounding adds to answers: of logits made by hand, and of a small encoder and head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from mer_calibration import CalibrationError, FloatAnswers, Noise, Quantised, Window
from mer_calibration.measure.noise import NOISELESS, compare_logits, decibels
from mer_calibration.measure.observation import open_session
from mer_runtime.feeds import MODALITIES

Run = Callable[..., NDArray[np.float32]]
Quantise = Callable[..., Quantised]


class TestCompareLogits:
    def test_by_hand(self) -> None:
        exact = np.array([[1.0, 0.0, 5.0, 4.0], [9.0, 8.0, 0.0, 0.0]])
        added = np.array([[0.4, -0.4, 0.2, -0.2], [0.0, 0.0, 0.3, -0.3]])
        found = compare_logits(exact + added, exact)
        assert found.rms == pytest.approx(math.sqrt(np.mean(np.square(added))))
        assert found.largest == pytest.approx(0.4)
        # 5 against 4 gains 0.4, 9 against 8 nothing.
        assert found.margin == pytest.approx(math.sqrt(0.4**2 / 2))
        assert found.windows == 2

    def test_what_all_classes_have_in_common_is_no_noise(self) -> None:
        exact = np.random.default_rng(0).normal(0, 2, (5, 8)).astype(np.float32)
        found = compare_logits(exact + np.float32([[3], [-1], [0], [7], [0.5]]), exact)
        # Roundings of float32 remain.
        assert max(found.rms, found.largest, found.margin) < 1e-6

    @given(seed=st.integers(0, 999), spread=st.floats(1e-3, 1e3))
    def test_sizes(self, seed: int, spread: float) -> None:
        generator = np.random.default_rng(seed)
        exact = generator.normal(0, 2, (50, 8))
        added = generator.normal(0, spread, (50, 8))
        found = compare_logits(exact + added, exact)
        assert 0 < found.rms <= found.largest <= found.rms * math.sqrt(50 * 8)
        assert found.margin <= 2 * found.largest
        # Of the difference of two values that are independent: sqrt(2) times theirs.
        assert found.margin == pytest.approx(math.sqrt(2 * 8 / 7) * found.rms, rel=0.5)
        wider = compare_logits(exact + 2 * added, exact)
        assert wider.rms == pytest.approx(2 * found.rms)
        assert wider.margin == pytest.approx(2 * found.margin)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_answers_that_are_not_finite(self, value: float) -> None:
        exact = np.zeros((2, 8), np.float32)
        answers = exact.copy()
        answers[1, 3] = value
        with pytest.raises(CalibrationError, match="no finite answers"):
            compare_logits(answers, exact)

    def test_no_answers(self) -> None:
        nothing = np.zeros((0, 8), np.float32)
        with pytest.raises(CalibrationError, match="no finite answers"):
            compare_logits(nothing, nothing)


def test_decibels() -> None:
    assert decibels(200.0, 2.0) == pytest.approx(20)
    assert decibels(1.0, 0.0) == math.inf
    assert decibels(0.0, 1.0) == -math.inf


class TestWindow:
    def test_what_can_be_shown(self, windows: list[Window]) -> None:
        whole = windows[0]
        assert whole.feeds() == MODALITIES == ("both", "audio", "video")
        assert dataclasses.replace(whole, crops=None).feeds() == ("audio",)
        assert dataclasses.replace(whole, mfcc=None).feeds() == ("video",)

    def test_shows_something(self) -> None:
        with pytest.raises(CalibrationError, match="neither a voice nor a face"):
            Window(None, None)


@pytest.fixture(scope="module")
def rounded(
    net: ModelProto, head: ModelProto, feeds: list[Any], windows: list[Window], quantise: Quantise
) -> tuple[ModelProto, ModelProto]:
    """``net`` and ``head`` in int8."""
    session = open_session(net, 1)
    samples = [
        {"mfcc": one.mfcc[None], "features": session.run(None, {"faces": one.crops})[0][None]}
        for one in windows
        if one.mfcc is not None
    ]
    return quantise(net, feeds).model, quantise(head, samples).model


def answer(
    encoder: ModelProto, net: ModelProto, head: ModelProto, window: Window, shown: str, run: Run
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """By hand: features (frames, F) and logits (classes,) of one window."""
    mfcc, crops = window.mfcc, window.crops
    assert mfcc is not None
    assert crops is not None
    features = run(encoder, {"faces": crops})
    black = run(net, {"faces": np.zeros_like(crops)})
    feed = {
        "mfcc": np.zeros_like(mfcc[None]) if shown == "video" else mfcc[None],
        "features": (black if shown == "audio" else features)[None],
    }
    return features, run(head, feed)[0]


class TestFloatAnswers:
    def test_float_graphs_add_nothing(
        self, answers: FloatAnswers, net: ModelProto, head: ModelProto
    ) -> None:
        for found in (answers.measure(None, None), answers.measure(net, head)):
            assert found.sqnr == NOISELESS
            assert list(found.logits) == list(MODALITIES)
            for noise in found.logits.values():
                assert (noise.rms, noise.largest, noise.margin) == (0, 0, 0)
                assert noise.windows == 4

    @pytest.mark.parametrize("which", ["encoder", "head", "both"])
    def test_noise_is_that_of_the_answers(
        self,
        answers: FloatAnswers,
        net: ModelProto,
        head: ModelProto,
        rounded: tuple[ModelProto, ModelProto],
        windows: list[Window],
        run_onnx: Run,
        which: str,
    ) -> None:
        encoder = None if which == "head" else rounded[0]
        last = None if which == "encoder" else rounded[1]
        found = answers.measure(encoder, last)
        exact: dict[str, list[Any]] = {shown: [] for shown in MODALITIES}
        given: dict[str, list[Any]] = {shown: [] for shown in MODALITIES}
        signal = noise = 0.0
        for window in windows:
            for shown in MODALITIES:
                features, logits = answer(net, net, head, window, shown, run_onnx)
                exact[shown].append(logits)
                other, logits = answer(encoder or net, net, last or head, window, shown, run_onnx)
                given[shown].append(logits)
            signal += float(np.square(features, dtype=np.float64).sum())
            noise += float(np.square(features - other, dtype=np.float64).sum())
        for shown in MODALITIES:
            expected = compare_logits(np.stack(given[shown]), np.stack(exact[shown]))
            one = found.logits[shown]
            # A black window is run as one crop there, here as four.
            assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(expected), 1e-2)
        assert found.sqnr == pytest.approx(min(decibels(signal, noise), NOISELESS))
        # The encoder has no part in the voice alone.
        assert (found.logits["audio"].rms == 0) == (which == "encoder")
        assert min(found.logits["both"].rms, found.logits["video"].rms) > 0
        assert (found.sqnr == NOISELESS) == (which == "head")

    def test_missing_modalities(
        self,
        answers: FloatAnswers,
        net: ModelProto,
        head: ModelProto,
        rounded: tuple[ModelProto, ModelProto],
        windows: list[Window],
    ) -> None:
        """Each clip is shown as far as it goes; the answers are those of whole ones so shown."""
        voices = [dataclasses.replace(one, crops=None) for one in windows[:2]]
        faces = [dataclasses.replace(one, mfcc=None) for one in windows[2:]]
        some = FloatAnswers(net, head, [*voices, *faces], threads=1).measure(*rounded)
        assert list(some.logits) == ["audio", "video"]
        for shown, part in (("audio", windows[:2]), ("video", windows[2:])):
            whole = FloatAnswers(net, head, part, threads=1).measure(*rounded)
            assert some.logits[shown] == whole.logits[shown]
            assert some.logits[shown].windows == 2
        only_faces = FloatAnswers(net, head, windows[2:], threads=1).measure(*rounded)
        assert some.sqnr == only_faces.sqnr, "features are measured where there are any"
        everything: Noise = answers.measure(*rounded)
        assert everything.logits["both"].windows == 4

    def test_voices_alone(
        self,
        net: ModelProto,
        head: ModelProto,
        rounded: tuple[ModelProto, ModelProto],
        windows: list[Window],
    ) -> None:
        """No crop goes through the encoder: nothing can be said of it, and nothing is wrong."""
        voices = [dataclasses.replace(one, crops=None) for one in windows]
        deaf = FloatAnswers(net, head, voices, threads=1).measure(rounded[0], None)
        assert deaf.logits.keys() == {"audio"}
        assert deaf.logits["audio"].rms == 0

    def test_steps(self, answers: FloatAnswers, rounded: tuple[ModelProto, ModelProto]) -> None:
        steps: list[None] = []
        answers.measure(*rounded, lambda: steps.append(None))
        assert len(steps) == 4

    def test_noise_of_a_worse_graph_is_larger(
        self, answers: FloatAnswers, net: ModelProto, feeds: list[Any], quantise: Quantise
    ) -> None:
        coarse = quantise(net, feeds).model
        for tensor in coarse.graph.initializer:
            if tensor.name == "mean_scale":
                wide = 8 * numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
        fine, worse = (
            answers.measure(quantise(net, feeds).model, None),
            answers.measure(coarse, None),
        )
        assert worse.sqnr < fine.sqnr - 3
        assert worse.logits["video"].rms > 1.5 * fine.logits["video"].rms


class TestRefused:
    def test_no_windows(self, net: ModelProto, head: ModelProto) -> None:
        with pytest.raises(CalibrationError, match="no window to compare answers on"):
            FloatAnswers(net, head, [])

    def test_graphs_that_do_not_load(self, answers: FloatAnswers, head: ModelProto) -> None:
        damaged = ModelProto()
        damaged.CopyFrom(head)
        damaged.graph.node[0].op_type = "Unheard"
        with pytest.raises(CalibrationError, match="ONNX Runtime can't load the graph"):
            answers.measure(None, damaged)
        with pytest.raises(CalibrationError, match="ONNX Runtime can't load the graph"):
            open_session(onnx.ModelProto())

    def test_windows_that_do_not_fit(
        self, net: ModelProto, head: ModelProto, windows: list[Window]
    ) -> None:
        whole = windows[0]
        assert whole.mfcc is not None
        assert whole.crops is not None
        for wrong in (
            dataclasses.replace(whole, mfcc=whole.mfcc[:3]),
            dataclasses.replace(whole, crops=whole.crops[:, :4]),
            dataclasses.replace(whole, crops=whole.crops[:2]),
        ):
            with pytest.raises(CalibrationError, match=r"window 2 can't be run: ") as caught:
                FloatAnswers(net, head, [whole, wrong])
            assert "\n" not in str(caught.value)

    def test_answers_that_are_not_finite(self, answers: FloatAnswers, head: ModelProto) -> None:
        broken = ModelProto()
        broken.CopyFrom(head)
        for tensor in broken.graph.initializer:
            if tensor.name == "classify":
                value = np.full((16, 8), np.nan, np.float32)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        with pytest.raises(CalibrationError, match="no finite answers"):
            answers.measure(None, broken)
