"""Overlays: real files, drawn where the face is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mer_runtime import OutputError, Recognizer
from mer_runtime.live.overlay import ACCENT, BACKGROUND, PANEL_WIDTH, draw, write_overlay
from mer_runtime.prediction import Analysis

pytestmark = pytest.mark.filterwarnings("ignore:the model was trained:mer_runtime.MerWarning")


@pytest.fixture(scope="module")
def recognizer(bundle: Path) -> Recognizer:
    return Recognizer.load(bundle, threads=1)


@pytest.fixture(scope="module")
def analysis(recognizer: Recognizer, sample_clip: Path) -> Analysis:
    return recognizer.analyse(sample_clip)


def test_picture_shows_box_and_bars(
    recognizer: Recognizer, analysis: Analysis, tmp_path: Path
) -> None:
    write_overlay(tmp_path / "answer.png", analysis, recognizer.spec)
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "answer.png")), cv2.COLOR_BGR2RGB)
    assert picture.shape == (360, 640 + PANEL_WIDTH, 3)
    accent = (picture == ACCENT).all(axis=-1)
    assert analysis.faces is not None
    box = analysis.faces.boxes[7]
    middle = round(box.y + box.height / 2)
    edges = np.flatnonzero(accent[middle, :640])
    assert abs(edges.min() - box.x) <= 2
    assert abs(edges.max() - (box.x + box.width)) <= 2
    best = analysis.prediction.probabilities[analysis.prediction.label]
    longest = accent[:, 640 + 104 : -58].sum(axis=1)[60:].max()
    assert longest == pytest.approx(best * (PANEL_WIDTH - 162), abs=3)
    assert [p.name for p in tmp_path.iterdir()] == ["answer.png"]


def test_video_has_picture_and_sound_of_the_window(
    recognizer: Recognizer, analysis: Analysis, tmp_path: Path
) -> None:
    write_overlay(tmp_path / "answer.mp4", analysis, recognizer.spec)
    with av.open(str(tmp_path / "answer.mp4")) as container:
        frames = list(container.decode(video=0))
        assert len(frames) == 15
        # The last of 15 frames is shown for a slot more.
        assert float(frames[-1].time) == pytest.approx(3.6 - 0.24, abs=0.01)
        container.seek(0)
        sound = sum(frame.samples for frame in container.decode(audio=0))
        assert sound / 16_000 == pytest.approx(3.6, abs=0.15)  # AAC pads its ends


def test_voice_alone_shows_its_waveform(
    recognizer: Recognizer, make_clip: Callable[..., Path]
) -> None:
    picture = draw(recognizer.analyse(make_clip("voice.wav")), recognizer.spec, 7)
    left = picture[:, : -PANEL_WIDTH - 1]
    assert (left != BACKGROUND).any(axis=-1).mean() > 0.02


def test_low_picture_is_enlarged(recognizer: Recognizer, make_clip: Callable[..., Path]) -> None:
    picture = draw(recognizer.analyse(make_clip(size=(160, 120))), recognizer.spec, 0)
    assert picture.shape[0] == 360


@pytest.mark.parametrize("name", ["answer.jpg", "missing/answer.png", "missing/answer.mp4"])
def test_unwritable_output(
    recognizer: Recognizer, analysis: Analysis, tmp_path: Path, name: str
) -> None:
    with pytest.raises(OutputError, match="can't write"):
        write_overlay(tmp_path / name, analysis, recognizer.spec)
    assert not list(tmp_path.iterdir())
