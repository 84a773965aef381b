"""What training changes about clips, against other libraries and by measurement."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
import pytest
import torch

from mer.data.augmentation import (
    FaceView,
    change_crops,
    change_waveform,
    draw_examples,
    drop_channels,
    mask_mfcc,
)
from mer.protocols import BALANCED, PAPER, REFERENCE, VoiceAugmentation

STILL = VoiceAugmentation(
    speed=0, shift=0, noise=0, snr=(20, 20), mask_frames=0, mask_coefficients=0
)


def test_softhard_makes_four_of_each_clip() -> None:
    examples = draw_examples(range(8), REFERENCE, np.random.default_rng(1))
    assert len(examples) == 32
    assert [e.row for e in examples] != sorted(e.row for e in examples)  # shuffled
    by_row = defaultdict(list)
    for example in examples:
        by_row[example.row].append(example)
    coefficients = set()
    for copies in by_row.values():
        assert len({(e.face.flip, e.face.angle) for e in copies}) == 1
        factors = [(e.voice, e.face.light) for e in copies]
        for hard in ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
            factors.remove(hard)
        ((voice, light),) = factors
        assert voice + light == pytest.approx(1)
        assert round(100 * voice) == pytest.approx(100 * voice)
        coefficients.add(voice)
    assert len(coefficients) > 1


def test_balanced_shows_each_clip_whole_and_each_modality_alone() -> None:
    examples = draw_examples(range(8), BALANCED, np.random.default_rng(1))
    assert [e.row for e in examples] != sorted(e.row for e in examples)  # shuffled
    by_row = defaultdict(list)
    for example in examples:
        by_row[example.row].append(example)
    assert len(by_row) == 8
    for copies in by_row.values():
        assert len({e.face.flip for e in copies}) == 1
        factors = sorted((e.voice, e.face.light) for e in copies)
        assert factors == [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]


def test_paper_drops_each_modality_as_often_as_it_says() -> None:
    examples = draw_examples(range(4000), PAPER, np.random.default_rng(1))
    assert [e.row for e in examples] == list(range(4000))
    kinds = [(e.voice, e.face.light) for e in examples]
    assert set(kinds) == {(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)}
    # 0.15 of 4 000 is 600; five standard deviations are 113.
    assert abs(kinds.count((0.0, 1.0)) - 600) < 113
    assert abs(kinds.count((1.0, 0.0)) - 600) < 113
    assert {e.face.angle for e in examples} == set(range(-10, 11))
    assert abs(sum(e.face.flip for e in examples) - 2000) < 158


def test_rotation_equals_opencv(portrait: np.ndarray) -> None:
    picture = cv2.resize(portrait, (64, 64), interpolation=cv2.INTER_AREA)
    (turned,) = change_crops(torch.from_numpy(picture)[None], FaceView(angle=10)).numpy()
    matrix = cv2.getRotationMatrix2D((31.5, 31.5), 10, 1.0)  # anticlockwise, as ours
    expected = cv2.warpAffine(picture.astype(np.float32), matrix, (64, 64))
    inside = np.s_[4:-4, 4:-4]  # at the border the two interpolate against black differently
    # OpenCV rounds positions to 1/32 pixel: up to 255/32 grey levels at a hard edge.
    assert np.abs(turned[inside] - expected[inside]).max() < 8
    assert np.abs(turned[inside] - picture[inside]).max() > 50


def test_flip_and_light() -> None:
    crops = torch.arange(2 * 2 * 3 * 3, dtype=torch.uint8).view(2, 2, 3, 3)
    shown = change_crops(crops, FaceView(flip=True, light=0.25))
    assert shown.dtype == torch.float32
    assert (shown.numpy() == crops.numpy()[:, :, ::-1] * np.float32(0.25)).all()
    assert change_crops(crops, FaceView(light=0.0)).abs().max() == 0


def test_unchanged_waveform() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    changed = change_waveform(wave, 1000, STILL, np.random.default_rng(1))
    # float32 rounding of the interpolation
    assert np.abs(changed - wave).max() < 1e-6


def test_shift_moves_by_at_most_what_it_says() -> None:
    wave = np.zeros(16_000, np.float32)
    wave[8_000] = 1
    augmentation = VoiceAugmentation(speed=0, shift=0.2, noise=0)
    generator = np.random.default_rng(0)
    places = [
        int(change_waveform(wave, 16_000, augmentation, generator).argmax()) for _ in range(200)
    ]
    assert 4_800 <= min(places) < 5_200
    assert 10_800 < max(places) <= 11_200


def test_speed_changes_the_pitch() -> None:
    rate = 16_000
    wave = np.sin(2 * np.pi * 500 * np.arange(rate) / rate).astype(np.float32)
    augmentation = VoiceAugmentation(speed=0.1, shift=0, noise=0)
    generator = np.random.default_rng(0)
    peaks = [
        int(np.abs(np.fft.rfft(change_waveform(wave, rate, augmentation, generator))).argmax())
        for _ in range(60)
    ]
    assert 449 <= min(peaks) < 460
    assert 540 < max(peaks) <= 551


def test_noise_has_the_ratio_it_says() -> None:
    wave = np.sin(np.arange(40_000) * 0.1).astype(np.float32)
    augmentation = VoiceAugmentation(speed=0, shift=0, noise=1, snr=(20, 20))
    noise = change_waveform(wave, 16_000, augmentation, np.random.default_rng(0)) - wave
    ratio = 10 * np.log10(np.mean(wave**2) / np.mean(noise**2))
    # A variance from 40 000 samples is right to 0.7 %, 0.03 dB; four times that.
    assert ratio == pytest.approx(20, abs=0.12)


def test_silence_stays_silent() -> None:
    augmentation = VoiceAugmentation(noise=1)
    silent = np.zeros(1000, np.float32)
    assert not change_waveform(silent, 1000, augmentation, np.random.default_rng(0)).any()


def test_masks_fill_runs_with_the_mean() -> None:
    mfcc = np.random.default_rng(0).normal(0, 1, (10, 113)).astype(np.float32)
    fill = np.arange(100, 110, dtype=np.float32)[:, None]
    augmentation = VoiceAugmentation(mask_frames=16, mask_coefficients=2)
    generator = np.random.default_rng(0)
    widths = set()
    for _ in range(100):
        masked = mask_mfcc(mfcc, fill, augmentation, generator)
        changed = masked != mfcc
        assert (masked[changed] == np.broadcast_to(fill, mfcc.shape)[changed]).all()
        columns, rows = changed.all(axis=0), changed.all(axis=1)
        assert (changed == (columns[None] | rows[:, None])).all()
        widths.add((int(columns.sum()), int(rows.sum())))
    assert max(w for w, _ in widths) == 16
    assert max(h for _, h in widths) == 2
    assert min(w for w, _ in widths) == min(h for _, h in widths) == 0


def test_dropped_channels_are_the_clip_s() -> None:
    features = torch.ones(4, 15, 1000)
    dropped = drop_channels(features, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])
    kept = dropped[dropped > 0]
    assert torch.allclose(kept, torch.tensor(1 / 0.7))
    # 4 000 draws: five standard deviations of the mean are 0.052.
    assert dropped.mean().item() == pytest.approx(1, abs=0.052)
    assert drop_channels(features, 0.0, torch.Generator()) is features
