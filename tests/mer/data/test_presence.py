"""What a model is fed in place of a face or a voice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mer.data.presence import Feed, choose_feed, make_noise_crops, make_noise_mfcc
from mer_runtime.errors import MissingModalityError
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.spec import AudioSpec, VideoSpec


@pytest.mark.parametrize(
    ("args", "feed", "modality"),
    [
        ((), Feed(), "both"),
        (("audio",), Feed(face="missing"), "audio"),
        (("video",), Feed(voice="missing"), "video"),
        (("audio", "noise"), Feed(face="noise"), "both"),
        (("video", "noise", None), Feed(face="noise", voice="missing"), "video"),
        (("both", None, "noise"), Feed(voice="noise"), "both"),
    ],
)
def test_modality_in_terms_of_face_and_voice(args: Any, feed: Feed, modality: str) -> None:
    assert choose_feed(*args) == feed
    assert feed.modality == modality


def test_something_must_be_left() -> None:
    with pytest.raises(MissingModalityError, match="both missing"):
        choose_feed("audio", voice="missing")


def test_noise_is_noise_and_the_clip_s_own() -> None:
    video, audio = VideoSpec(frames=3, size=64), AudioSpec()
    crops, mfcc = make_noise_crops(video, "one"), make_noise_mfcc(audio, "one")
    assert (crops.shape, crops.dtype) == ((3, 64, 64, 3), np.uint8)
    # 36 864 values uniform on 0 to 255: mean 127.5, its standard error 0.4.
    assert abs(crops.mean() - 127.5) < 2
    assert not (crops[0] == crops[1]).all()
    assert (mfcc.shape, mfcc.dtype) == (audio.shape, np.float32)
    assert (crops == make_noise_crops(video, "one")).all()
    assert (mfcc == make_noise_mfcc(audio, "one")).all()
    assert not (crops == make_noise_crops(video, "two")).all()
    assert not (mfcc == make_noise_mfcc(audio, "two")).all()
    # White: its level over frames hardly moves, unlike that of a tone that comes and goes.
    ticks = np.arange(audio.samples) / audio.sample_rate
    tone = (np.sin(2 * np.pi * 440 * ticks) * (ticks > 1.8)).astype(np.float32)
    steady, unsteady = (one[0, 2:-2].std() for one in (mfcc, compute_mfcc(tone, audio)))
    assert steady < 0.1 * unsteady  # first and last frames are half padding
