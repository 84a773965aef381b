"""``mer-run`` on files and folders as they are in the field: names, links, tracks, notes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from mer_runtime.cli import main
from mer_runtime.inputs import face, streams

MakeClip = Callable[..., Path]


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["ia-int8", *(str(a) for a in arguments)])


def test_folder_named_like_a_camera(
    sample_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "12:30:05").write_bytes(sample_clip.read_bytes())
    (tmp_path / "2024" / "._12:30:05.mp4").write_bytes(b"\0\5\x16\7")
    (tmp_path / "2024" / "notes.txt").write_text("A letter.")
    result = run("2024")
    assert result.exit_code == 0
    assert result.stdout.startswith("2024/12:30:05: ")
    assert "Warning: 2024: left out: 1 hidden, 1 not media\n" in result.stderr


def test_notes_and_track_are_told(make_clip: MakeClip, sample_clip: Path) -> None:
    from mer_runtime.inputs.media import read_window
    from mer_runtime.spec import Spec

    spoken = read_window(sample_clip, Spec()).waveform
    assert spoken is not None
    path = make_clip(
        "clip.mkv",
        times=50 + np.arange(60) / 30,
        waveform=np.tile(spoken, 14),
        sample_rate=16_000,
    )
    note = "there is no picture from "
    assert f"\n  {note}" in run(path).stdout
    answer = json.loads(run(path, "--json", "--audio-track", 1).stdout)
    assert answer["notes"][0].startswith(note)
    assert answer["audio_track"] == 1
    refused = run(path, "--audio-track", 2)
    assert refused.exit_code == 1
    assert refused.stderr.endswith("clip.mkv: has no audio track 2, but 1\n")
    assert run(path, "--audio-track", 0).exit_code == 2


def test_want_of_memory_is_one_clips(
    sample_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(sample_clip.read_bytes())
    decode = streams.MediaStreams.decode
    failed: list[bool] = []

    def fail_once(self: Any, *arguments: Any, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise MemoryError
        return decode(self, *arguments, **options)

    monkeypatch.setattr(streams.MediaStreams, "decode", fail_once)
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "a.mp4: there isn't memory enough" in result.stderr
    assert "b.mp4: " in result.stdout


def want_memory_of_opencv() -> None:
    """OpenCV's own error for 100 GB that it can't have."""
    cv2.resize(np.zeros((2, 2, 3), np.uint8), (1 << 15, 1 << 20))


def want_memory_of_python() -> None:
    raise MemoryError


@pytest.mark.parametrize("want", [want_memory_of_opencv, want_memory_of_python])
@pytest.mark.parametrize("options", [(), ("--threads", "1"), ("--timeline", "times.json")])
def test_want_of_memory_for_faces_is_one_clips(
    want: Callable[[], None],
    options: tuple[str, ...],
    sample_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (clips / name).write_bytes(sample_clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    detect = face.YuNetDetector.detect_all
    failed: list[bool] = []

    def fail_once(self: face.YuNetDetector, picture: Any) -> list[face.Box]:
        if not failed:
            failed.append(True)
            want()
        return detect(self, picture)

    monkeypatch.setattr(face.YuNetDetector, "detect_all", fail_once)
    result = run(clips, *options)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "a.mp4: there isn't " in line
    assert "b.mp4: " in result.stdout
