"""What the gate allows, and the statistics that it decides by."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from mer_calibration.measure.noise import LogitNoise, Noise
from mer_export.proof.limits import (
    DEVICE_SPREAD,
    FLOAT_LIMITS,
    GOLDEN_BIAS,
    GOLDEN_DECIBELS,
    GOLDEN_ENOUGH,
    GOLDEN_SPREAD,
    LEAST_AGREEMENT,
    NOISE_FACTOR,
    REMOTE_FLOAT_LIMITS,
    SETTLED_SPREAD,
    agreement_p_value,
    find_agreement_interval,
    find_doubtful_margins,
    find_limits,
    loss_p_value,
    measure_bias,
    signal_to_noise,
)
from mer_runtime.feeds import MODALITIES

#: Of a calibration: the three feeds' noise differs.
NOISE = Noise(
    30.0,
    {
        "both": LogitNoise(rms=0.02, largest=0.08, margin=0.03, windows=60),
        "audio": LogitNoise(rms=0.01, largest=0.04, margin=0.02, windows=60),
        "video": LogitNoise(rms=0.04, largest=0.2, margin=0.06, windows=60),
    },
)


class TestLimits:
    def test_follow_from_the_calibrations_noise(self) -> None:
        limits = find_limits("int8", "onnx", NOISE)
        for shown in MODALITIES:
            rms = NOISE.logits[shown].rms
            assert limits.golden[shown] == GOLDEN_SPREAD * rms
            assert limits.noise[shown] == NOISE_FACTOR * rms
        assert limits.sqnr == 30 - GOLDEN_DECIBELS
        narrow = dataclasses.replace(NOISE, sqnr=50)
        assert find_limits("int8", "onnx", narrow).sqnr == GOLDEN_ENOUGH
        assert limits.bias == GOLDEN_BIAS
        # A device's tolerance is one for all.
        assert limits.device == DEVICE_SPREAD * 0.04
        assert find_doubtful_margins({"both": 0.03, "audio": 0.02, "video": 0.06}) == {
            "both": SETTLED_SPREAD * 0.03,
            "audio": SETTLED_SPREAD * 0.02,
            "video": SETTLED_SPREAD * 0.06,
        }

    def test_feed_that_was_not_calibrated_gets_the_largest(self) -> None:
        noise = Noise(30.0, {name: NOISE.logits[name] for name in ("both", "audio")})
        limits = find_limits("int8", "onnx", noise)
        assert limits.golden["video"] == limits.golden["both"] == GOLDEN_SPREAD * 0.02
        assert limits.noise["video"] == limits.noise["both"]
        assert find_doubtful_margins({"audio": 0.02}) == dict.fromkeys(
            MODALITIES, SETTLED_SPREAD * 0.02
        )

    def test_roundings_of_floats_are_allowed_always(self) -> None:
        """A head in float adds nothing to the voice alone but these."""
        quiet = dataclasses.replace(NOISE.logits["audio"], rms=1e-6)
        noise = Noise(30.0, {**NOISE.logits, "audio": quiet})
        for target, floats in (("onnx", FLOAT_LIMITS), ("tensorrt", REMOTE_FLOAT_LIMITS)):
            limits = find_limits("int8", target, noise)  # type: ignore[arg-type]
            assert limits.golden["audio"] == limits.noise["audio"] == floats["int8"]

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_floats_have_limits_of_their_own(self, precision: Any) -> None:
        limits = find_limits(precision, "onnx", None)
        assert set(limits.golden.values()) == {limits.device} == {FLOAT_LIMITS[precision]}
        assert limits.noise == {}
        remote = find_limits(precision, "tensorrt", None)
        assert remote.golden == limits.golden, "what is compared at export runs here"
        assert remote.device == REMOTE_FLOAT_LIMITS[precision] > limits.device


class TestStatistics:
    """SciPy's as oracle."""

    @pytest.mark.parametrize("clips", [1, 24, 240, 720])
    def test_agreement(self, clips: int) -> None:
        for differing in {0, 1, clips // 50, clips // 20, clips // 4, clips}:
            expected = binom.sf(differing - 1, clips, 1 - LEAST_AGREEMENT / 100)
            assert agreement_p_value(differing, clips) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(
        ("lost", "gained"), [(0, 0), (1, 0), (0, 5), (7, 0), (7, 1), (12, 12), (40, 20), (300, 250)]
    )
    def test_loss(self, lost: int, gained: int) -> None:
        expected = 1.0
        if lost + gained:
            expected = binomtest(lost, lost + gained, alternative="greater").pvalue
        assert loss_p_value(lost, gained) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("level", [0.05, 0.01])
    @pytest.mark.parametrize(
        ("same", "clips"), [(0, 8), (8, 8), (1, 1), (5, 8), (236, 240), (240, 240), (709, 720)]
    )
    def test_interval(self, same: int, clips: int, level: float) -> None:
        exact = binomtest(same, clips).proportion_ci(1 - level, method="exact")
        expected = 100 * exact.low, 100 * exact.high
        assert find_agreement_interval(same, clips, level) == pytest.approx(expected, abs=1e-9)

    def test_decibels(self) -> None:
        generator = np.random.default_rng(0)
        exact = generator.normal(size=(9, 1000)).astype(np.float32)
        for decibels in (-3.0, 0.0, 20.0, 40.0):
            added = generator.normal(size=exact.shape)
            added *= np.linalg.norm(exact) / np.linalg.norm(added) / 10 ** (decibels / 20)
            given = (exact + added).astype(np.float32)
            assert signal_to_noise(exact, given) == pytest.approx(decibels, abs=1e-2)
        assert signal_to_noise(exact, exact) == np.inf

    def test_bias(self) -> None:
        generator = np.random.default_rng(0)
        exact = generator.normal(size=(9, 4000))
        own = generator.normal(size=exact.shape)
        common = np.broadcast_to(generator.normal(size=4000), exact.shape)

        def bias(added: Any) -> float:
            return measure_bias(exact.astype(np.float32), (exact + added).astype(np.float32))

        assert bias(common) == pytest.approx(1, abs=1e-5)
        # Of 9 crops' noise, a third of the root mean square is left in their average.
        assert bias(own) == pytest.approx(1 / 3, abs=0.02)
        assert bias(own + common) == pytest.approx(np.sqrt((1 + 1 / 9) / 2), abs=0.02)
        assert bias(0.0) == 0

    def test_bias_of_crops_that_are_alike(self) -> None:
        """Their noise is small and the same; against the noise that clips have it is little."""
        generator = np.random.default_rng(3)
        exact = generator.normal(size=(9, 4000)).astype(np.float32)
        common = 0.01 * generator.normal(size=4000).astype(np.float32)  # 40 dB
        assert measure_bias(exact, exact + common) == pytest.approx(1, abs=1e-3)
        assert measure_bias(exact, exact + common, 34.0) == pytest.approx(0.5, abs=0.02)
        # More than was predicted is told in full.
        assert measure_bias(exact, exact + common, 46.0) == pytest.approx(1, abs=1e-3)
