"""Detectors on a real photo and on frames of the stand-in corpus; crops checked by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.errors import FaceDetectorError, MerWarning, SpecError
from mer_runtime.inputs import face
from mer_runtime.inputs.face import (
    DETECTOR_VARIABLE,
    Box,
    FaceDetector,
    HaarDetector,
    YuNetDetector,
    load_detector,
)
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.window_faces import crop_faces
from mer_runtime.spec import Spec

Picture = NDArray[np.uint8]

#: The middle of the face in ``head``, in pixels, read off the picture.
FACE = (123, 118)


@pytest.fixture(params=["haar", "yunet"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    return HaarDetector() if request.param == "haar" else YuNetDetector()


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DETECTOR_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def head(portrait: Picture) -> Picture:
    """Head and shoulders, (240, 240, 3). In the whole photo the Haar cascade's largest "face"
    is part of the suit."""
    return np.ascontiguousarray(portrait[:240, 100:340])


def centre(box: Box) -> tuple[float, float]:
    return box.x + box.width / 2, box.y + box.height / 2


def blank(height: int = 360, width: int = 640) -> Picture:
    """A plain frame without a face, not quite even."""
    ramp = np.linspace(90, 130, width, dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)))


def place(head: Picture, left: int, side: int = 300) -> Picture:
    """The head, ``side`` pixels wide, at ``left`` of a plain frame."""
    frame = blank()
    frame[30 : 30 + side, left : left + side] = cv2.resize(head, (side, side))
    return frame


# --- detection ----------------------------------------------------------------------------


def test_finds_the_face(detector: FaceDetector, head: Picture) -> None:
    box = detector.detect(head)
    assert box is not None
    assert centre(box) == pytest.approx(FACE, abs=25)
    assert 70 < box.width < 170
    assert 70 < box.height < 170


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_box_scales_with_the_frame(detector: FaceDetector, head: Picture, scale: float) -> None:
    side = round(240 * scale)
    box = detector.detect(cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA))
    assert box is not None
    assert np.array(centre(box)) / scale == pytest.approx(FACE, abs=25)
    assert 70 < box.width / scale < 170


def test_takes_the_largest_of_two(detector: FaceDetector, head: Picture) -> None:
    frame = place(head, 20, side=150)
    frame[30:330, 320:620] = place(head, 320)[30:330, 320:620]
    box = detector.detect(frame)
    assert box is not None
    assert centre(box)[0] > 320
    flipped = detector.detect(np.ascontiguousarray(frame[:, ::-1]))
    assert flipped is not None
    assert centre(flipped)[0] < 320


def test_finds_all_faces_the_largest_first(detector: FaceDetector, head: Picture) -> None:
    frame = place(head, 20, 200)
    frame[:, 300:] = place(head, 320, 300)[:, 300:]
    faces = detector.detect_all(frame)
    # Haar's may hold a false one besides.
    assert {centre(face)[0] > 300 for face in faces} == {False, True}
    assert len(faces) == 2 or detector.name == "haar"
    assert [face.area for face in faces] == sorted((face.area for face in faces), reverse=True)
    assert detector.detect(frame) == faces[0]
    assert detector.detect_all(blank()) == []


@pytest.mark.parametrize("shape", [(360, 640), (1, 1), (8, 300), (2160, 3840)])
def test_no_face(detector: FaceDetector, shape: tuple[int, int]) -> None:
    assert detector.detect(blank(*shape)) is None


def test_frame_is_left_alone(detector: FaceDetector, portrait: Picture) -> None:
    before = portrait.copy()
    detector.detect(portrait)
    np.testing.assert_array_equal(portrait, before)


def test_yunet_sees_rgb(yunet: Path, portrait: Picture) -> None:
    """It must be fed BGR: its box for the frame is OpenCV's own for the BGR picture."""
    small = cv2.resize(portrait, (320, 320), interpolation=cv2.INTER_AREA)
    net = cv2.FaceDetectorYN.create(str(yunet), "", (320, 320), 0.6)
    _, faces = net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    box = YuNetDetector(yunet).detect(small)
    assert box is not None
    np.testing.assert_allclose((box.x, box.y, box.width, box.height), faces[0][:4], rtol=1e-5)


@pytest.mark.corpus
def test_stand_in_corpus(corpus: Path, yunet: Path) -> None:
    """YuNet finds most faces of the stand-in, more than the Haar cascade does."""
    spec = Spec()
    # One clip of every second actor, emotions turning.
    paths = [
        sorted(folder.glob(f"01-01-{i % 8 + 1:02d}-01-*.mp4"))[0]
        for i, folder in enumerate(sorted(corpus.glob("Actor_*"))[::2])
    ]
    assert len(paths) == 11
    found = {"yunet": 0, "haar": 0}
    for path in paths:
        frames = read_window(path, spec).frames
        assert frames is not None
        for which in (YuNetDetector(yunet), HaarDetector()):
            faces = crop_faces(frames[::7], spec.video, which)
            found[which.name] += faces is not None
    # 98 % of all clips, design.md; of these eleven at most one may be missed.
    assert found["yunet"] >= 10
    assert found["haar"] <= found["yunet"]


# --- choosing a detector ------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_which_detector_goes_first(
    yunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, set_, bundled = (tmp_path / f"{name}.onnx" for name in ("named", "set", "bundled"))
    for file in (named, set_, bundled):
        shutil.copy(yunet, file)
    assert load_detector().file == yunet  # the one that ships
    assert load_detector(trained="haar").name == "haar"
    assert load_detector(bundled=bundled, trained="haar").file == bundled
    monkeypatch.setenv(DETECTOR_VARIABLE, str(set_))
    assert load_detector(bundled=bundled).file == set_
    assert load_detector(str(named), bundled=bundled).file == named
    assert load_detector("haar", bundled=bundled).name == "haar"
    monkeypatch.setenv(DETECTOR_VARIABLE, "haar")
    assert load_detector(bundled=bundled).name == "haar"
    monkeypatch.setenv(DETECTOR_VARIABLE, str(tmp_path / "missing.onnx"))
    with pytest.raises(FaceDetectorError, match=r"missing\.onnx"):
        load_detector()


def test_opencv_without_yunet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "FaceDetectorYN")
    with pytest.warns(MerWarning, match=r"has no YuNet .*: the Haar cascade serves") as caught:
        assert load_detector().name == "haar"
    assert len(caught) == 1
    with pytest.raises(FaceDetectorError, match="--face-detector haar"):
        YuNetDetector()


@pytest.mark.parametrize("gone", ["data", "CascadeClassifier"])
def test_opencv_without_the_cascade(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, gone)
    assert load_detector().name == "yunet"
    with pytest.raises(FaceDetectorError, match=r"no Haar cascade .*: leave out") as caught:
        load_detector("haar")
    assert "\n" not in str(caught.value)


def test_shipped_file_that_was_changed(
    yunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (yunet.parent / "LICENSE").read_text().startswith("MIT License")
    changed = tmp_path / "yunet.onnx"
    changed.write_bytes(yunet.read_bytes() + b"\x10\x07")  # OpenCV would still load it
    YuNetDetector(changed)
    monkeypatch.setattr(face, "SHIPPED_YUNET", changed)
    with pytest.raises(FaceDetectorError, match="was changed since it came"):
        load_detector(changed)


def test_far_face_is_found_at_the_second_look(head: Picture) -> None:
    """87 pixels in 1080p, of which 320 leave 15; at 640 they are 29."""
    frame = blank(1080, 1920)
    side = round(87 / 100 * 240)
    frame[400 : 400 + side, 900 : 900 + side] = cv2.resize(
        head, (side, side), interpolation=cv2.INTER_AREA
    )
    detector = YuNetDetector()
    box = detector.detect(frame)
    assert box is not None
    assert centre(box) == pytest.approx((900 + side / 2, 400 + side / 2), abs=15)
    assert detector.detect_all(blank(1080, 1920)) == []
    # 40 pixels take a larger size.
    far = cv2.resize(frame, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    tiny = blank(1080, 1920)
    tiny[: far.shape[0], : far.shape[1]] = far
    assert detector.detect(tiny) is None
    assert YuNetDetector(size=1280).detect(tiny) is not None


@pytest.mark.parametrize("size", [0, 63, 4097])
@pytest.mark.parametrize("name", [None, "haar"])
def test_size_out_of_range(name: str | None, size: int) -> None:
    with pytest.raises(SpecError, match="detect_size must be 64 to 4096 pixels"):
        load_detector(name, size=size)


@pytest.fixture(params=["missing", "folder", "empty", "text", "another network", "truncated"])
def bad_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "detector.onnx"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "empty":
        path.touch()
    elif request.param == "text":
        path.write_text("not a network\n" * 100)
    elif request.param == "another network":
        onnx = pytest.importorskip("onnx")
        graph = onnx.parser.parse_graph("g (float[1, 3, 320, 320] x) => (float[1] y) {y = Relu(x)}")
        onnx.save(onnx.helper.make_model(graph), path)
    elif request.param == "truncated":
        whole = request.getfixturevalue("yunet").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    return path


def test_bad_file(bad_file: Path) -> None:
    with pytest.raises(FaceDetectorError) as error:
        load_detector(bad_file)
    assert str(error.value).startswith(str(bad_file))
    assert "\n" not in str(error.value)
