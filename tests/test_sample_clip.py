"""The committed sample clip is what its script makes: a face that is found and a voice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mer_runtime import Recognizer
from mer_runtime.inputs.face import HaarDetector, YuNetDetector
from mer_runtime.inputs.media import ClipWindow, read_window
from mer_runtime.inputs.window_faces import crop_faces
from mer_runtime.spec import Spec

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "make_sample_clip.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "portrait.mp4"
    subprocess.run([sys.executable, str(SCRIPT), str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def window(sample_clip: Path) -> ClipWindow:
    return read_window(sample_clip, Spec())


def test_streams_duration_and_size(sample_clip: Path) -> None:
    assert sample_clip.stat().st_size < 300_000
    with av.open(str(sample_clip)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (640, 360)
        assert video.average_rate == 30
        assert audio.sample_rate == 48_000
        assert container.duration / av.time_base == pytest.approx(4.2, abs=0.05)


def test_script_makes_the_committed_clip(made: Path, window: ClipWindow) -> None:
    again = read_window(made, Spec())
    assert list(made.parent.iterdir()) == [made]  # no temporary file stays
    # Not byte for byte: x264 and OpenCV choose their code by processor.
    difference = np.abs(again.frames.astype(int) - window.frames.astype(int))
    assert difference.mean() < 1.0
    assert np.corrcoef(again.waveform, window.waveform)[0, 1] > 0.99


def test_script_says_where_it_cannot_write(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "portrait.mp4"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: can't write ")
    assert len(done.stderr.splitlines()) == 1


def test_haar_finds_the_face(window: ClipWindow) -> None:
    faces = crop_faces(window.frames, Spec().video, HaarDetector())
    assert faces is not None
    assert faces.found.sum() >= 12


def test_yunet_finds_the_face_in_every_frame(window: ClipWindow, yunet: Path) -> None:
    faces = crop_faces(window.frames, Spec().video, YuNetDetector(yunet))
    assert faces is not None
    assert faces.found.all()


def test_face_moves(window: ClipWindow) -> None:
    faces = crop_faces(window.frames, Spec().video, HaarDetector())
    centres = np.array([(box.x + box.width / 2, box.y + box.height / 2) for box in faces.boxes])
    assert np.ptp(centres[:, 0]) > 15  # pixels; the pan alone spans about 46


def test_voice_speaks_and_pauses(window: ClipWindow) -> None:
    level = np.sqrt(np.mean(window.waveform.reshape(-1, 800) ** 2, axis=1))  # 50 ms each
    assert 0.3 < np.abs(window.waveform).max() <= 1
    assert np.mean(level > 0.05) > 0.3
    assert np.mean(level < 0.005) > 0.1


@pytest.mark.parametrize("bundle", ["ia-int8", "ia-compact-int8"])
def test_face_and_voice_are_of_one_emotion(sample_clip: Path, bundle: str) -> None:
    """What a newcomer sees first: a smiling face, and a glad voice."""
    window = read_window(sample_clip, Spec())
    recognizer = Recognizer.load(bundle)
    both = recognizer.predict(sample_clip)
    face = recognizer.predict(window.frames)
    voice = recognizer.predict(waveform=window.waveform, sample_rate=Spec().audio.sample_rate)
    assert [answer.label for answer in (both, face, voice)] == ["happy"] * 3
