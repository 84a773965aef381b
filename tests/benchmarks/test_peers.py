"""The peers' frames, suppression and answers, our worker beside them, and the docs' tables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer.data.corpus import find_recordings
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import Spec

ROOT = Path(__file__).resolve().parents[2]
Load = Callable[[str], ModuleType]
#: What an environment of a peer's tells about itself.
VERSIONS = {
    "mtcnn": {"versions": {"torch": "1.2"}, "suppression": "opencv"},
    "fer": {"versions": {"fer": "3.4"}},
}


def result(tables: ModuleType, names: list[str]) -> dict[str, Any]:
    interval = {"median": 20.0, "low": 19.0, "high": 21.5}
    run = {
        "rounds": 9,
        "facts": {
            name: {"faces_found": 14, "frames": 15, **VERSIONS.get(name, {})} for name in names
        },
        "milliseconds": {f"{name}/{task}": interval for name in names for task in tables.TASKS},
        "ratios": {tables.RATIOS[0].name: {"median": 2.0, "low": 1.9, "high": 2.125}},
        "starts": {name: {"seconds": 3.5, "memory_mb": 321.4} for name in names},
    }
    score = {"clips": 240, "answered": 200, "right": 120, "prec1": 50.0, "low": 43.7, "high": 56.3}
    return {
        "date": "2026-01-02",
        "machine": {
            "cpu": "A chip",
            "flags": ["avx2"],
            "cores": 2,
            "versions": {"torch": None},
            "load": [0.1, 0, 0],
        },
        "clip": {"name": "clip.mp4", "seconds": 4.2},
        "runs": [{**run, "threads": n} for n in (1, 2)],
        "accuracy": {
            "actors": [5, 10],
            "scores": {"fer": score, "haar-onnx-int8/both": {**score, "answered": 240}},
            "unseen": {"actors": [21], "scores": {"fer": score}},
        },
    }


def test_tables_hold_the_figures(load: Load) -> None:
    tables = load("peer_table")
    text = tables.render_tables(result(tables, ["mtcnn", "fer", "haar-onnx-int8"]))
    assert "A chip (avx2), 2 cores, load 0.1" in text
    assert "The clip is clip.mp4 (4.2 s). The peers' versions:" in text
    assert "mtcnn torch 1.2 (suppression: opencv); fer fer 3.4." in text
    cell = "20.0 (19.0 to 21.5)"
    assert f"| {tables.TITLES['mtcnn']} | {cell} | {cell} | 14 of 15 |" in text
    assert "ms | 1 thread | 2 threads |\n| --- | --- | --- |\n" in text, "nobody looks for a face"
    assert f"| {tables.TITLES['mtcnn']} | 3.50 | 3.50 | 321 |" in text
    assert "YuNet, int8" not in text, "who didn't run has no row"
    assert f"| {tables.RATIOS[0].name} | 2.00" in text
    right = "50.0 (43.7 to 56.3)"
    assert f"| {tables.TITLES['fer']} | 5, 10 | 240 | 200 | {right} | 60.0 |" in text
    assert f"| {tables.TITLES['fer']} | 21 |" in text
    assert (
        f"| {tables.TITLES['haar-onnx-int8']}, face and voice | 5, 10 | 240 | 240 | {right} |  |"
        in text
    )


def test_every_ratio_is_timed(load: Load, tmp_path: Path) -> None:
    """A ratio whose tasks nobody runs would be left out in silence."""
    peers, tables = load("peers"), load("peer_table")
    entries = peers.list_entries(tmp_path, tmp_path / "yunet.onnx")
    timed = {f"{entry.name}/{task}" for entry in entries for task in entry.tasks}
    assert {side for ratio in tables.RATIOS for side in (ratio.slow, ratio.fast)} <= timed
    assert {entry.name for entry in entries} == set(tables.TITLES)


def test_docs_and_json_agree(load: Load) -> None:
    tables = load("peer_table")
    blocks = list(re.finditer(tables.BLOCK, tables.DOCUMENT.read_text()))
    assert len(blocks) == 1
    assert blocks[0][0] == tables.render_block(blocks[0]["file"])


def test_docs_are_rewritten_between_their_markers(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = load("peer_table")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "DOCUMENT", tmp_path / "docs.md")
    data = tmp_path / "one.json"
    data.write_text(json.dumps(result(tables, ["fer"])))
    tables.DOCUMENT.write_text("before\n<!-- peers: old.json -->\nx\n<!-- /peers -->\nend")
    tables.write_docs(data)
    text = tables.DOCUMENT.read_text()
    assert text.startswith("before\n<!-- peers: one.json -->\nA chip")
    assert text.endswith("<!-- /peers -->\nend")


def test_calm_counts_as_neutral(load: Load, tmp_path: Path) -> None:
    accuracy = load("peer_accuracy")
    # 30 % + 25 % make neutral win over the single most probable label.
    assert accuracy.choose({"neutral": 0.3, "calm": 0.25, "happy": 0.45}) == "neutral"
    assert accuracy.choose({"fear": 0.6, "surprise": 0.4}) == "fearful"
    for emotion in (2, 3, 6, 8):  # calm, happy, fearful, surprised
        (tmp_path / f"01-01-{emotion:02}-01-01-01-05.mp4").touch()
    answers = [{"neutral": 1.0}, {"sad": 1.0}, {"fear": 1.0}, None]
    score = accuracy.score_answers(find_recordings(tmp_path), answers)
    assert (score["clips"], score["answered"], score["right"]) == (4, 3, 2)
    assert score["prec1"] == 50, "a clip without a face is a wrong answer"
    assert score["low"] < 50 < score["high"]


def test_suppression_keeps_the_best_of_those_that_overlap(load: Load) -> None:
    """OpenCV's in torchvision's place: the same as the definition, worked out box by box."""
    import torch

    suppress = load("peer_nms").suppress
    generator = np.random.default_rng(3)
    corners = generator.uniform(0, 60, (200, 2))
    boxes = np.hstack([corners, corners + generator.uniform(8, 30, (200, 2))]).astype(np.float32)
    scores = generator.permutation(np.linspace(0.1, 0.9, 200)).astype(np.float32)
    kept: list[int] = []
    for i in np.argsort(-scores):
        if all(overlap(boxes[i], boxes[k]) <= 0.5 for k in kept):
            kept.append(int(i))
    assert 10 < len(kept) < 190, "the case must decide something"
    answer = suppress(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5)
    assert answer.dtype == torch.int64
    assert answer.tolist() == kept
    assert suppress(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


def test_peers_are_given_the_frames_that_they_should(
    load: Load,
    make_clip: Callable[..., Path],
    read_frame_number: Callable[[NDArray[np.uint8]], int],
) -> None:
    frames = load("peer_frames")
    clip = make_clip(seconds=4.2, audio=False)
    # The reference's rule, floor(i n / 15) + floor(n / 30) of 108 frames, from the first one on.
    expected = [3, 10, 17, 24, 31, 39, 46, 53, 60, 67, 75, 82, 89, 96, 103]
    assert [read_frame_number(frame) for frame in frames.read_published(clip)] == expected
    ours = read_window(clip, Spec()).frames
    assert ours is not None
    centre = [read_frame_number(frame) for frame in frames.read_centre(clip)]
    # OpenCV tells a frame rate a little below 30 here, which may name the frame before.
    np.testing.assert_allclose(centre, [read_frame_number(frame) for frame in ours], atol=1)
    assert len(set(centre)) == 15


def test_voice_is_written_at_its_own_rate(
    load: Load, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    clip = make_clip("clip.mkv", seconds=1.0, sample_rate=44_100, layout="stereo")
    load("peers").write_voice(clip, tmp_path / "voice.wav")
    with wave.open(str(tmp_path / "voice.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (44_100, 1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert abs(len(samples) - 44_100) < 2048  # a codec's frame at most
    # A tone of amplitude 0.5 in both channels, and so in their mean.
    assert np.abs(samples).max() / 32768 == pytest.approx(0.5, abs=0.02)


def test_workers_need_nothing_of_a_peer_s_environment() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import mer_bench.worker"
    code += "; print('numpy' in sys.modules, 'mer_runtime' in sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_our_worker_takes_turns_and_answers(
    load: Load, bundle: Path, sample_clip: Path, tmp_path: Path
) -> None:
    """The real worker on a small model: times, a fresh start, and the emotions of clips."""
    peers, bench = load("peers"), load("bench")
    tasks = ("inputs", "detect", "clip", "crop")
    entry = peers.Entry(
        "haar-onnx-int8",
        Path(sys.executable),
        ("--bundle", str(bundle), "--detector", "haar"),
        tasks,
        "clip",
    )
    with peers.open_entries([entry], sample_clip, [core()]) as contenders:
        facts = contenders[0].ask("describe")
        assert facts["detector"] == "haar"
        assert facts["faces_found"] > 0
        pairs = [("haar-onnx-int8", task) for task in tasks]
        times = bench.time_rounds(contenders, pairs, rounds=1)
    assert all(len(times[f"haar-onnx-int8/{task}"]) == 1 for task in tasks)
    start = peers.time_starts(entry, sample_clip, [core()], runs=1)
    assert start["seconds"] > 0
    assert start["memory_mb"] > 20, "more than Python alone"
    (tmp_path / "01-01-03-01-01-01-05.mp4").symlink_to(sample_clip)
    (answer,) = peers.answer_clips(entry, sample_clip, find_recordings(tmp_path))
    assert set(answer) == {"face", "both"}
    for scores in answer.values():
        assert sum(scores.values()) == pytest.approx(1)


def core() -> int:
    return max(os.sched_getaffinity(0))
