"""Whether an answer is settled, or a close call that rounding may have decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_runtime import Recognizer
from mer_runtime.bundle import Bundle
from mer_runtime.feeds import Temperatures
from mer_runtime.model import softmax

pytestmark = [
    pytest.mark.filterwarnings("ignore:the model was trained:mer_runtime.MerWarning"),
    pytest.mark.usefixtures("no_detector_variable"),
]

MakeClip = Callable[..., Path]


#: What is shown, as a face and a voice, and margins by it.
FEEDS = {"both": (True, True), "audio": (False, True), "video": (True, False)}


MARGINS = {"both": 0.3, "audio": 0.2, "video": 0.1}


Change = Callable[..., Recognizer]


@pytest.fixture(scope="module")
def change(recognizer: Recognizer) -> Change:
    """A function that gives the recogniser of a bundle with other fields."""

    def replace(**fields: Any) -> Recognizer:
        changed: Bundle = dataclasses.replace(recognizer.bundle, **fields)
        return Recognizer(changed, recognizer.backend)

    return replace


def of_one(shown: str, temperature: float) -> Temperatures:
    """One for what is shown, and another for all else."""
    return Temperatures(**(dict.fromkeys(FEEDS, 7.0) | {shown: temperature}))


class TestSettled:
    """Whether rounding may have decided between the two best classes."""

    def ask(self, recognizer: Recognizer, logits: Any, shown: str = "both") -> bool:
        face, voice = FEEDS[shown]
        probabilities = softmax(
            np.asarray(logits, np.float32) / np.float32(recognizer.bundle.temperatures.of(shown))
        )
        return recognizer.is_settled(probabilities, face=face, voice=voice)

    @pytest.mark.parametrize("shown", FEEDS)
    @pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
    @pytest.mark.parametrize("gap", [0.0, 0.05, 0.15, 0.25, 0.35, 20.0])
    def test_by_the_margin_of_what_is_shown(
        self, change: Change, gap: float, temperature: float, shown: str
    ) -> None:
        """In logits: the temperature spreads probabilities, and moves no answer."""
        recognizer = change(doubtful_margins=MARGINS, temperatures=of_one(shown, temperature))
        logits = [1.0, 2.0 + gap, -1.0, 2.0, 0.0, 0.0, 1.9, -30.0]
        assert self.ask(recognizer, logits, shown) == (gap > MARGINS[shown])

    @settings(max_examples=200, deadline=None)
    @given(
        logits=st.lists(st.floats(-8, 8, width=32), min_size=8, max_size=8),
        added=st.lists(st.floats(-0.999, 0.999), min_size=8, max_size=8),
        margin=st.floats(0.01, 4),
        temperature=st.floats(0.3, 4),
        shown=st.sampled_from(["both", "audio", "video"]),
    )
    def test_what_noise_within_the_margin_flips_was_not(
        self,
        change: Change,
        logits: list[float],
        added: list[float],
        margin: float,
        temperature: float,
        shown: str,
    ) -> None:
        """Noise of less than half the margin for each logit; and all that is not settled can be
        flipped so."""
        margins = dict.fromkeys(FEEDS, 0.0) | {shown: margin}
        recognizer = change(doubtful_margins=margins, temperatures=of_one(shown, temperature))
        exact = np.array(logits)
        settled = self.ask(recognizer, exact, shown)
        noisy = exact + margin / 2 * np.array(added)
        if noisy.argmax() != exact.argmax():
            assert not settled
        if not settled:
            second, first = np.argsort(exact)[-2:]
            # A little more than half the margin: probabilities come of float32 logits.
            exact[first] -= 0.5001 * margin + 1e-5
            exact[second] += 0.5001 * margin + 1e-5
            assert exact.argmax() == second

    def test_certain_answers(self, change: Change) -> None:
        """Where the second best has no probability left that a float64 can hold."""
        recognizer = change(doubtful_margins=MARGINS, temperatures=of_one("both", 0.01))
        assert self.ask(recognizer, [1000.0, *[0.0] * 7])
        assert not self.ask(recognizer, [0.0] * 8)

    def test_in_answers_to_clips(
        self,
        write_tiny_bundle: Callable[..., Path],
        make_clip: MakeClip,
        portrait: NDArray[np.uint8],
    ) -> None:
        """A clip with both, one without a face, one without a voice: each by its own margin."""
        face = {"size": (320, 320), "picture": portrait}
        clips = {
            "both": make_clip("both.mkv", **face),
            "audio": make_clip("audio.wav"),
            "video": make_clip("video.mkv", audio=False, **face),
        }
        plain = Recognizer.load(write_tiny_bundle(), threads=1)
        for shown, clip in clips.items():
            found = plain.predict(clip)
            assert (found.face, found.voice) == FEEDS[shown]
            second, first = sorted(found.probabilities.values())[-2:]
            gap = float(plain.bundle.temperatures.of(shown) * np.log(first / second))
            for factor in (0.99, 1.01):
                # Any other margin would say the opposite.
                others = dict.fromkeys(FEEDS, 1e3 if factor < 1 else 0.0)
                margins = others | {shown: factor * gap}
                changed = dataclasses.replace(plain.bundle, doubtful_margins=margins)
                told = Recognizer(changed, plain.backend).predict(clip)
                assert told.settled is (factor < 1)
                assert told.to_dict()["settled"] is told.settled
