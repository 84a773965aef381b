"""The tutorial's corpus: named as RAVDESS names files, and its classes differ in face and voice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mer.data.corpus import list_corpus
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import RAVDESS_LABELS, Spec


def test_clips_are_a_corpus(
    load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("make_sample_corpus")
    monkeypatch.setattr(script, "ACTORS", (5,))
    monkeypatch.setattr(script, "RAVDESS_LABELS", RAVDESS_LABELS[:2])
    assert script.make_corpus(tmp_path) == 2
    found = list_corpus(tmp_path).recordings
    assert [(one.actor, one.emotion) for one in found] == [(5, 0), (5, 1)]
    first, second = (read_window(one.path, Spec()) for one in found)
    assert first.frames is not None
    assert second.frames is not None
    tint = second.frames.mean(axis=(0, 1, 2)) / first.frames.mean(axis=(0, 1, 2))
    assert tint[2] > 1.5 > tint[:2].max(), "blue is dimmed in the first class alone"
    assert first.waveform is not None
    assert second.waveform is not None
    assert np.abs(first.waveform - second.waveform).max() > 0.1
