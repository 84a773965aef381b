"""A newcomer has pictures, sound and bytes in memory, not a file's path."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import MediaError, MissingModalityError, Recognizer, SpecError
from mer_runtime.inputs.sound import ChannelOrder


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load("ia-int8", detect_size=320)


@pytest.fixture(scope="module")
def decoded(sample_clip: Path) -> dict[str, Any]:
    """The sample clip's frames, their times, its waveform and rate."""
    with av.open(str(sample_clip)) as clip:
        shown = [(f.to_ndarray(format="rgb24"), f.time) for f in clip.decode(video=0)]
    with av.open(str(sample_clip)) as clip:
        heard = list(clip.decode(audio=0))
    sound = np.concatenate([frame.to_ndarray() for frame in heard], axis=1)
    frames, times = zip(*shown, strict=True)
    return {
        "frames": list(frames),
        "times": np.array(times),
        "waveform": sound,
        "sample_rate": heard[0].sample_rate,
    }


def test_bytes_and_file_objects_are_as_the_path(recognizer: Recognizer, sample_clip: Path) -> None:
    expected = recognizer.predict(sample_clip).probabilities
    content = sample_clip.read_bytes()

    class Pipe:
        """It can't go back."""

        def read(self, size: int = -1) -> bytes:
            return stream.read(size)

    stream = BytesIO(content)
    assert recognizer.predict(content).probabilities == expected
    assert recognizer.predict(Pipe()).probabilities == expected
    with sample_clip.open("rb") as file:
        file.seek(100)
        assert recognizer.predict(file).probabilities == expected
        assert not file.closed


def test_frames_and_waveform_together(
    recognizer: Recognizer, sample_clip: Path, decoded: dict[str, Any]
) -> None:
    given = dict(decoded)
    frames = given.pop("frames")
    prediction = recognizer.predict(frames, **given)
    assert prediction.face
    assert prediction.voice
    assert prediction.end - prediction.start == pytest.approx(3.6)
    expected = recognizer.predict(sample_clip)
    assert prediction.label == expected.label
    shares = [list(p.probabilities.values()) for p in (prediction, expected)]
    np.testing.assert_allclose(*shares, atol=0.1)
    swapped = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    again = recognizer.predict(swapped, colour="bgr", **given)
    assert again.probabilities == prediction.probabilities
    given["waveform"] = given["waveform"].T  # (n, channels)
    assert recognizer.predict(frames, **given).probabilities == prediction.probabilities


def test_each_alone(recognizer: Recognizer, decoded: dict[str, Any], tmp_path: Path) -> None:
    frames, sound, rate = decoded["frames"], decoded["waveform"], decoded["sample_rate"]
    seen = recognizer.predict(frames[::8])
    assert (seen.face, seen.voice) == (True, False)
    heard = recognizer.predict(waveform=sound[0], sample_rate=rate)
    assert (heard.face, heard.voice) == (False, True)
    still = recognizer.predict(frames[0])
    assert (still.face, still.faces_found) == (True, 15)
    cv2.imwrite(str(tmp_path / "face.png"), frames[0][..., ::-1])
    assert recognizer.predict(tmp_path / "face.png").probabilities == still.probabilities
    with pytest.raises(MissingModalityError, match="no face was found"):
        recognizer.predict(np.zeros((90, 160, 3), np.uint8))


@pytest.mark.parametrize(
    ("clip", "options", "said"),
    [
        (np.zeros((90, 160, 3), np.float32), {}, r"must be \(H, W, 3\) uint8.*astype"),
        (np.zeros((90, 160), np.uint8), {}, "COLOR_GRAY2RGB"),
        (np.zeros((3, 90, 160), np.uint8), {}, "transpose"),
        (np.zeros((90, 160, 4), np.uint8), {}, "fourth channel"),
        ([], {}, "no frames in the list"),
        (3, {}, "not int"),
        (None, {}, "give a clip, frames or a waveform"),
        (None, {"waveform": np.zeros(9)}, "needs its sample_rate"),
        (None, {"waveform": np.zeros((9, 9)), "sample_rate": 16_000}, "isn't certain"),
        (np.zeros((2, 9, 9, 3), np.uint8), {"times": [0.0]}, r"times must be \(2,\)"),
        (np.zeros((2, 9, 9, 3), np.uint8), {"times": [1.0, 0.0]}, "must not go back"),
        (np.zeros((2, 9, 9, 3), np.uint8), {"colour": "gbr"}, "'rgb' or 'bgr'"),
        (b"x", {"sample_rate": 16_000}, "a file has its own times and sound"),
    ],
)
def test_what_is_refused(
    recognizer: Recognizer, clip: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        recognizer.predict(clip, **options)


class Tensor:
    """What gives an array when NumPy asks, as PyTorch's tensors and Pillow's pictures do."""

    def __init__(self, values: NDArray[Any] | None) -> None:
        self.values = values

    def __array__(self, *args: Any, **options: Any) -> NDArray[Any]:
        if self.values is None:
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        return self.values


def test_what_becomes_an_array(recognizer: Recognizer, portrait: NDArray[np.uint8]) -> None:
    predict: Any = recognizer.predict  # what type checkers refuse
    sound = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    plain = predict(portrait, waveform=sound, sample_rate=16_000)
    given = [Tensor(portrait)]
    other = predict(given, waveform=Tensor(sound[None]), sample_rate=16_000.0)
    assert other.probabilities == plain.probabilities
    assert predict(Tensor(portrait)).face
    with pytest.raises(SpecError, match=r"Tensor doesn't become an array: can't convert cuda:0"):
        predict(Tensor(None))
    with pytest.raises(SpecError, match="sound is given as waveform="):
        predict(sound)
    with pytest.raises(SpecError, match="a whole number of Hz"):
        predict(waveform=sound, sample_rate=float("nan"))


def test_url_text_and_nothing_are_refused(recognizer: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"https://host/x\.mp4: is a URL, and"):
        recognizer.predict("https://me:secret@host/x.mp4")
    (tmp_path / "x.mp4").write_text("Dear reader")
    with (tmp_path / "x.mp4").open() as file, pytest.raises(SpecError, match="mode 'rb'"):
        recognizer.predict(file)
    with pytest.raises(MediaError, match="<bytes>: the file is empty"):
        recognizer.predict(b"")


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((1024,), 1), ((1024, 1), 1), ((1024, 2), 2), ((2, 1024), 2), ((64, 2), 2), ((0, 2), 2)],
)
def test_sound_either_way_round(shape: tuple[int, ...], channels: int) -> None:
    assert ChannelOrder().arrange(np.zeros(shape)).shape[0] == channels


def test_short_chunks_go_by_the_ones_before() -> None:
    order = ChannelOrder()
    with pytest.raises(SpecError, match="isn't certain"):
        order.arrange(np.zeros((5, 2)))
    order.arrange(np.zeros((512, 2)))
    assert order.arrange(np.zeros((5, 2))).shape == (2, 5)
    assert order.arrange(np.zeros((2, 2)), last=False).shape == (2, 2)
    with pytest.raises(SpecError, match="more than 64 channels"):
        order.arrange(np.zeros((65, 65)))
