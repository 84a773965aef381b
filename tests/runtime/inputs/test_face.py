"""Detectors on a real photo and on frames of the stand-in corpus; crops checked by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.errors import FaceDetectorError
from mer_runtime.inputs.face import (
    DETECTOR_VARIABLE,
    Box,
    FaceDetector,
    HaarDetector,
    YuNetDetector,
    crop_face,
    crop_faces,
    fill_boxes,
    load_detector,
)
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import Spec, VideoSpec

Picture = NDArray[np.uint8]

#: The middle of the face in ``head``, in pixels, read off the picture.
FACE = (123, 118)


@pytest.fixture(params=["haar", pytest.param("yunet", marks=pytest.mark.corpus)])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    if request.param == "haar":
        return HaarDetector()
    return YuNetDetector(request.getfixturevalue("yunet"))


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


@pytest.mark.corpus
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


def test_haar_serves_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="Haar") as caught:
        detector = load_detector()
    assert detector.name == "haar"
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


@pytest.mark.corpus
def test_file_and_variable(yunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_detector(yunet).name == "yunet"
        assert load_detector(str(yunet)).name == "yunet"
        monkeypatch.setenv(DETECTOR_VARIABLE, str(yunet))
        assert load_detector().name == "yunet"
        monkeypatch.setenv(DETECTOR_VARIABLE, str(tmp_path / "missing.onnx"))
        assert load_detector(yunet).name == "yunet"  # the argument goes first
    with pytest.raises(FaceDetectorError, match=r"missing\.onnx"):
        load_detector()


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


# --- boxes over time ----------------------------------------------------------------------


def test_faceless_frame_takes_the_nearest_box(detector: FaceDetector, head: Picture) -> None:
    left, right, none = place(head, 0), place(head, 300), blank()
    frames = np.stack([none, left, none, none, right, none, none, none])
    faces = crop_faces(frames, VideoSpec(frames=8), detector)
    assert faces is not None
    assert faces.found.tolist() == [False, True, False, False, True, False, False, False]
    assert faces.found.dtype == np.bool_
    lefts = [centre(box)[0] < 300 for box in faces.boxes]
    assert lefts == [True, True, True, False, False, False, False, False]
    assert len(set(faces.boxes)) == 2  # the very box, not one detected anew
    # What is cropped there is the faceless frame, not the neighbour.
    np.testing.assert_array_equal(
        faces.crops[2], crop_face(none, faces.boxes[1], VideoSpec(frames=8))
    )


def test_equally_near_frames_give_the_earlier_box() -> None:
    first, second = Box(0, 0, 10, 10), Box(50, 0, 10, 10)
    filled = fill_boxes([first, None, second])
    assert filled == (first, first, second)
    assert fill_boxes([None, None]) is None


def test_no_face_in_any_frame_is_a_missing_modality(detector: FaceDetector) -> None:
    assert crop_faces(np.stack([blank()] * 3), VideoSpec(frames=3), detector) is None


# --- crops --------------------------------------------------------------------------------


def test_crops_shape_and_content(detector: FaceDetector, head: Picture) -> None:
    spec = VideoSpec(frames=2)
    faces = crop_faces(np.stack([head, head]), spec, detector)
    assert faces is not None
    assert faces.crops.shape == (2, 224, 224, 3)
    assert faces.crops.dtype == np.uint8
    # The crop is the face: found again, filling most of it.
    again = detector.detect(cv2.copyMakeBorder(faces.crops[0], *[112] * 4, cv2.BORDER_REPLICATE))
    assert again is not None
    assert max(again.width, again.height) > 0.5 * 224
    assert centre(again) == pytest.approx((224, 224), abs=40)


def test_bgr_is_rgb_backwards(portrait: Picture) -> None:
    box = Box(170, 60, 110, 130)
    rgb = crop_face(portrait, box, VideoSpec(colour="rgb"))
    bgr = crop_face(portrait, box, VideoSpec(colour="bgr"))
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])
    red, _, blue = rgb.reshape(-1, 3).mean(axis=0)
    assert red > blue + 10  # skin


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("size", [96, 224])
def test_square_side_and_margin(portrait: Picture, margin: float, size: int) -> None:
    box = Box(180, 60, 100, 140)
    crop = crop_face(portrait, box, VideoSpec(margin=margin, size=size))
    side = round(140 * (1 + margin))
    left, top = round(230 - side / 2), round(130 - side / 2)
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    wanted = cv2.resize(
        portrait[max(top, 0) : top + side, left : left + side], (size, size), interpolation=method
    )
    assert top >= 0  # this test stays inside the picture
    np.testing.assert_array_equal(crop, wanted)


@pytest.mark.parametrize(
    "box",
    [
        Box(-40, 50, 100, 100),
        Box(470, 50, 100, 100),
        Box(100, -60, 100, 100),
        Box(100, 480, 100, 100),
        Box(-50, -50, 700, 700),
        Box(460.5, 470.25, 90.5, 33.0),
    ],
)
def test_beyond_the_edge_it_is_repeated(portrait: Picture, box: Box) -> None:
    border = 400
    padded = cv2.copyMakeBorder(portrait, *[border] * 4, cv2.BORDER_REPLICATE)
    moved = Box(box.x + border, box.y + border, box.width, box.height)
    np.testing.assert_array_equal(
        crop_face(portrait, box, VideoSpec()), crop_face(padded, moved, VideoSpec())
    )


@pytest.mark.parametrize("box", [Box(0, 0, 0, 0), Box(-900, -900, 50, 50), Box(3, 3, 0.2, 0.1)])
def test_degenerate_box_still_gives_a_crop(portrait: Picture, box: Box) -> None:
    assert crop_face(portrait, box, VideoSpec()).shape == (224, 224, 3)


def test_face_at_the_frame_border(detector: FaceDetector, head: Picture) -> None:
    """Half of the hair is cut off by the frame's edge: still a crop of full size."""
    frame = np.ascontiguousarray(head[60:, 60:])
    faces = crop_faces(frame[None], VideoSpec(frames=1, margin=0.5), detector)
    assert faces is not None
    assert faces.crops.shape == (1, 224, 224, 3)
    assert centre(faces.boxes[0]) == pytest.approx((FACE[0] - 60, FACE[1] - 60), abs=25)
