"""The gate: each rule lets through what it should and nothing that is clearly different."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from mer import Checkpoint
from mer_export.errors import GateError, NonFiniteError
from mer_export.proof.gate import check_golden, check_together, check_validation
from mer_export.proof.golden import golden_reference
from mer_export.proof.limits import LEAST_AGREEMENT, LEVEL, MAX_DROP, Limits
from mer_runtime.feeds import MODALITIES
from mer_runtime.golden import Golden


@pytest.fixture(scope="module")
def checkpoint(small_model: Any) -> Checkpoint:
    return Checkpoint(*small_model)


@pytest.fixture(scope="module")
def golden(checkpoint: Checkpoint) -> Golden:
    return golden_reference(checkpoint)


class TestGolden:
    limits = Limits(
        golden={"both": 0.2, "audio": 0.1, "video": 0.3},
        sqnr=20.0,
        predicted=math.inf,
        bias=0.6,
        loss=math.inf,
        noise={},
        device=0.5,
    )

    def check(
        self, golden: Golden, logits: Any = None, features: Any = None, **limits: float
    ) -> Any:
        return check_golden(
            golden,
            golden.reference if logits is None else logits,
            golden.features if features is None else features,
            dataclasses.replace(self.limits, **limits),  # type: ignore[arg-type]
        )

    def test_exact_engine_passes(self, golden: Golden) -> None:
        logits = golden.reference + np.float32(1e-4)
        answered, report = self.check(golden, logits)
        assert report.max_difference == pytest.approx(1e-4, rel=0.1)
        assert report.agreement == 100
        assert report.cases == 12
        assert report.tolerance == 0.3
        assert (report.sqnr, report.bias) == (None, 0)
        np.testing.assert_array_equal(answered.answers, logits)
        assert answered.tolerance == 0.5
        assert answered.temperatures == golden.temperatures

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("tighter crop", "both"),
            ("face missing, fast voice", "audio"),
            ("voice missing, every crop", "video"),
        ],
    )
    def test_each_feed_has_its_limit(self, golden: Golden, name: str, shown: Any) -> None:
        """One logit of one case; and the line names the case."""
        limit = self.limits.golden[shown]

        def move(amount: float) -> Any:
            logits = golden.reference.copy()
            logits[golden.cases.index(name), 3] += amount
            return logits

        for sign in (-1, 1):
            _, report = self.check(golden, move(0.99 * sign * limit))
            assert report.max_difference == pytest.approx(0.99 * limit, rel=1e-3)
            with pytest.raises(GateError, match=f"'{name}', more than {limit}:") as caught:
                self.check(golden, move(1.01 * sign * limit))
            assert caught.value.shown == shown

    def test_worst_by_its_own_limit_is_named(self, golden: Golden) -> None:
        logits = golden.reference.copy()
        logits[golden.cases.index("voice missing"), 0] += 0.29
        logits[golden.cases.index("face missing"), 0] += 0.15
        with pytest.raises(GateError, match=r"by 0\.15 on .*'face missing', more than 0\.1:"):
            self.check(golden, logits)

    def add_noise(self, golden: Golden, decibels: float, *, common: bool = False) -> Any:
        shape = (1, golden.features.shape[1]) if common else golden.features.shape
        added = np.broadcast_to(np.random.default_rng(0).normal(size=shape), golden.features.shape)
        scale = np.linalg.norm(golden.features) / np.linalg.norm(added) / 10 ** (decibels / 20)
        return (golden.features + scale * added).astype(np.float32)

    def test_noise_of_the_features(self, golden: Golden) -> None:
        _, report = self.check(golden, features=self.add_noise(golden, 20.05))
        assert report.sqnr == pytest.approx(20.05, abs=0.02)
        # Of 14 crops' noise, that much is left in their average.
        assert report.bias == pytest.approx(1 / math.sqrt(14), abs=0.03)
        with pytest.raises(GateError, match=r"golden crops have 19\.\d dB .*less than 20\.0:"):
            self.check(golden, features=self.add_noise(golden, 19.9))

    def test_one_answer_to_all_crops(self, golden: Golden) -> None:
        """Their mean has no bias, and as much noise as a bad calibration may predict."""
        mean = np.broadcast_to(golden.features.mean(axis=0), golden.features.shape)
        with pytest.raises(GateError, match=r"is 100% as large as what tells .*more than 50%"):
            self.check(golden, features=mean, sqnr=-math.inf, loss=0.5)
        halfway = golden.features + np.float32(0.49) * (mean - golden.features)
        self.check(golden, features=halfway, sqnr=-math.inf, loss=0.5)

    def test_noise_that_all_crops_share(self, golden: Golden) -> None:
        """However little it is."""
        with pytest.raises(GateError, match=r"100% of what is added .*more than 60%"):
            self.check(golden, features=self.add_noise(golden, 60, common=True))
        mixed = self.add_noise(golden, 40) + self.add_noise(golden, 46, common=True)
        _, report = self.check(golden, features=mixed - golden.features)
        assert 0.45 < report.bias < 0.6
        mixed = self.add_noise(golden, 40) + self.add_noise(golden, 43, common=True)
        with pytest.raises(GateError, match="that isn't rounding"):
            self.check(golden, features=mixed - golden.features)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_answers_that_are_no_numbers_fail(self, golden: Golden, value: float) -> None:
        logits = golden.reference.copy()
        logits[4, 2] = value
        with pytest.raises(NonFiniteError, match=f"'{golden.cases[4]}' is not finite"):
            self.check(golden, logits)
        features = golden.features.copy()
        features[8, 1] = value
        with pytest.raises(NonFiniteError, match="features of the golden crops are not finite"):
            self.check(golden, features=features)


class TestValidation:
    """240 clips of 8 classes, answered rightly by the reference but for the first 24."""

    CLIPS = 240
    targets = np.arange(CLIPS) % 8

    def reference(self) -> Any:
        logits = np.zeros((self.CLIPS, 8), np.float32)
        order = np.arange(self.CLIPS)
        logits[order, (self.targets + (order < 24)) % 8] = 4
        return logits

    def check(self, answers: Any, **options: Any) -> Any:
        options = {"temperature": 1, "noise": None} | options
        return check_validation("audio", self.reference(), answers, self.targets, **options)

    def flip(self, lost: int = 0, gained: int = 0, other: int = 0) -> Any:
        """Answers of which so many become wrong, right, and wrong in another way."""
        logits = self.reference()
        for i in (*range(100, 100 + lost), *range(gained, gained + other)):
            logits[i] = np.roll(logits[i], 2)
        for i in range(gained):
            logits[i] = np.roll(logits[i], -1)
        return logits

    def test_same_answers_pass(self) -> None:
        report = self.check(self.reference() * 1.5)
        assert report.prec1 == report.prec1_float == 90
        assert report.comparison.agreement == 100
        assert report.agreement_interval == pytest.approx(
            [100 * bound for bound in binomtest(240, 240).proportion_ci(method="exact")]
        )

    def test_flips_are_counted(self) -> None:
        paired = self.check(self.flip(lost=2, gained=1, other=3), max_drop=9).comparison
        assert (paired.only_a, paired.only_b) == (1, 2)
        assert paired.agreement == pytest.approx(100 * 234 / 240)

    def test_loss_fails_beyond_chance(self) -> None:
        """Seven losses against none happen in one of 128 cases by chance; one of 64 may pass."""
        assert 1 / 2**7 < LEVEL < 1 / 2**6
        assert self.check(self.flip(lost=6)).prec1 == pytest.approx(90 - 6 / 2.4)
        with pytest.raises(
            GateError, match=r"the voice alone.*loses 2\.92 points.*\(\+0 -7 clips\).*than 0\.5 and"
        ) as caught:
            self.check(self.flip(lost=7))
        assert caught.value.shown == "audio"

    def test_gains_speak_against_a_loss(self) -> None:
        for lost in (7, 8, 9):
            assert binomtest(lost, lost + 1, alternative="greater").pvalue > LEVEL
            found = self.check(self.flip(lost=lost, gained=1))
            assert found.prec1 == pytest.approx(90 - (lost - 1) / 2.4)

    def test_loss_that_is_allowed(self) -> None:
        """However certain it is."""
        assert self.check(self.flip(lost=7), max_drop=3).prec1 == pytest.approx(90 - 7 / 2.4)
        with pytest.raises(GateError, match=r"more than 2\.9 and beyond chance"):
            self.check(self.flip(lost=7), max_drop=2.9)

    def test_gain_is_no_loss(self) -> None:
        assert self.check(self.flip(gained=9)).prec1 == pytest.approx(90 + 9 / 2.4)

    def test_few_clips_prove_no_loss(self) -> None:
        """Where a clip is more than the points that are allowed, one may go."""
        chosen = slice(100, 108)
        report = check_validation(
            "both",
            self.reference()[chosen],
            self.flip(lost=1)[chosen],
            self.targets[chosen],
            temperature=1,
        )
        assert report.prec1_float - report.prec1 == 12.5

    def test_disagreement_fails_though_nothing_is_lost(self) -> None:
        """Wrong answers that become other wrong ones cost nothing, but it is another model."""
        # The most that 98 % agreement leaves to chance.
        most = int(binom.isf(LEVEL, self.CLIPS, 1 - LEAST_AGREEMENT / 100))
        assert binom.sf(most - 1, self.CLIPS, 0.02) >= LEVEL > binom.sf(most, self.CLIPS, 0.02)
        report = self.check(self.flip(other=most))
        assert report.prec1 == 90
        alike = re.escape(f"{100 - (most + 1) / 2.4:.2f} %")
        with pytest.raises(GateError, match=rf"{alike} of the .*less than 98 beyond") as caught:
            self.check(self.flip(other=most + 1))
        assert caught.value.shown == "audio"

    def test_noise_beyond_what_was_predicted(self) -> None:
        added = np.random.default_rng(0).normal(0, 0.05, (self.CLIPS, 8)).astype(np.float32)
        answers = self.reference() + added
        expected = np.sqrt(np.square(added - added.mean(axis=1, keepdims=True)).mean())
        report = self.check(answers, noise=1.01 * expected)
        assert report.noise == pytest.approx(expected, rel=1e-4)
        assert report.comparison.agreement == 100
        with pytest.raises(GateError, match=r"adds 0\.047 to the logits .*calibration") as caught:
            self.check(answers, noise=0.99 * expected)
        assert caught.value.shown == "audio"
        assert self.check(answers).noise == report.noise, "nothing predicted, nothing refused"

    def test_what_all_classes_have_in_common_is_no_noise(self) -> None:
        assert self.check(self.reference() + np.float32(3), noise=1e-3).noise < 1e-6

    def test_answers_that_are_no_numbers_fail(self) -> None:
        answers = self.reference()
        answers[7, 3] = np.nan
        with pytest.raises(NonFiniteError, match="not finite"):
            self.check(answers)

    def test_calibration_error_is_at_the_bundles_temperature(self) -> None:
        cool, hot = (self.check(self.reference(), temperature=t) for t in (0.1, 10))
        assert cool.ece == cool.ece_float
        assert cool.ece < 15 < hot.ece


class TestTogether:
    """What no feed alone shows, all may."""

    def reports(self, **flips: int) -> list[Any]:
        one = TestValidation()
        answers = one.flip(**flips)
        return [
            check_validation(shown, one.reference(), answers, one.targets, temperature=1)
            for shown in MODALITIES
        ]

    def test_no_flip_passes(self) -> None:
        check_together(self.reports(), MAX_DROP)

    def test_loss(self) -> None:
        """Two of each feed are six in all, and may be chance; three are nine."""
        check_together(self.reports(lost=2), MAX_DROP)
        with pytest.raises(
            GateError, match=r"each modality and both, .*1\.25 points.*-9 clips"
        ) as caught:
            check_together(self.reports(lost=3), MAX_DROP)
        assert caught.value.shown is None
        check_together(self.reports(lost=3), 1.25)

    def test_disagreement(self) -> None:
        most = int(binom.isf(LEVEL, 720, 0.02)) // 3
        check_together(self.reports(other=most), MAX_DROP)
        with pytest.raises(GateError, match=r"each modality and both, .*less than 98"):
            check_together(self.reports(other=most + 1), MAX_DROP)
