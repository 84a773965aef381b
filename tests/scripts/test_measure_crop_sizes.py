"""Crops at several sizes show the same face, and the table tells how far answers move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from mer_runtime.errors import MerError
from mer_runtime.spec import Spec

Load = Callable[[str], ModuleType]


def test_one_face_at_each_size(load_script: Load, sample_clip: Path) -> None:
    script = load_script("measure_crop_sizes")
    crops, mfcc = script.cut_sizes(sample_clip, Spec())
    assert mfcc is not None
    assert [one.shape for one in crops.values()] == [(15, s, s, 3) for s in (96, 112, 224)]
    small = cv2.resize(crops[224][7], (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - crops[96][7]).mean() < 5  # of 255: another filter
    png = script.draw_sizes({size: one[7] for size, one in crops.items()})
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (224, 3 * 224, 3)


def test_clip_without_a_face(load_script: Load, tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    wavfile.write(sound, 16_000, np.zeros(64_000, np.int16))
    with pytest.raises(MerError, match="there is no face in it"):
        load_script("measure_crop_sizes").cut_sizes(sound, Spec())


def test_table_tells_the_largest_change(load_script: Load) -> None:
    answers = {"96": {"happy": 0.8, "sad": 0.2}, "224": {"happy": 0.4, "sad": 0.6}}
    rows = [{"clip": "a.mp4", "voice": True, "answers": answers}]
    table = load_script("face_tables").format_crop_sizes({"rows": rows})
    assert table.splitlines()[2] == "| a.mp4 | yes | happy 80 % | sad 60 % | 40 points |"
