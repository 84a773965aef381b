"""One person in each frame of a window, found or followed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.crops import crop_face
from mer_runtime.inputs.face import Box, FaceDetector, HaarDetector, YuNetDetector
from mer_runtime.inputs.tracking import compare_looks, describe_look
from mer_runtime.inputs.window_faces import FaceCrops, crop_faces
from mer_runtime.spec import Detector, VideoSpec

Picture = NDArray[np.uint8]
WINDOW = VideoSpec(frames=15, size=96)
#: The middle of the face in ``head``, in pixels, read off the picture.
FACE = (123, 118)


@pytest.fixture(params=["haar", "yunet"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    return HaarDetector() if request.param == "haar" else YuNetDetector()


@pytest.fixture(scope="module")
def ann(portrait: Picture) -> Picture:
    """Head and shoulders, (240, 240, 3)."""
    return np.ascontiguousarray(portrait[:240, 100:340])


@pytest.fixture(scope="module")
def bea(ann: Picture) -> Picture:
    """Somebody else: seen from the other side, in another light."""
    other = np.ascontiguousarray(ann[:, ::-1, ::-1])
    shade = np.linspace(0.25, 1.0, 240)[None, :, None]
    return np.asarray(other * shade, np.uint8)


def scene(*people: tuple[Picture, float], clock: int = 0) -> Picture:
    """(240, 640, 3): people in boxes of 150 pixels at some lefts, and a patch that changes."""
    frame = np.full((240, 640, 3), 110, np.uint8)
    for head, left in people:
        at = round(left)
        frame[40:190, at : at + 150] = cv2.resize(head, (150, 150), interpolation=cv2.INTER_AREA)
    frame[:20, :20] = 90 * (clock % 3)
    return frame


def crop(frames: list[Picture], every: int = 3) -> FaceCrops:
    faces = crop_faces(np.stack(frames), WINDOW, YuNetDetector(), every=every)
    assert faces is not None
    return faces


def lefts(faces: FaceCrops) -> NDArray[np.float64]:
    return np.array([box.x for box in faces.boxes])


def shows(faces: FaceCrops, head: Picture, other: Picture) -> list[bool]:
    """Of each crop, whether it is more like one person than like the other."""
    detector = YuNetDetector()
    looks = [describe_look(one, detector.detect(one)) for one in (head, other)]
    whole = Box(0, 0, WINDOW.size, WINDOW.size)
    seen = [describe_look(crop, whole) for crop in faces.crops]
    likeness = [[compare_looks(one, look) for look in looks] for one in seen]
    return [one > two for one, two in likeness]


# --- one person a window ------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_two_faces_of_one_size_are_two_people(ann: Picture, bea: Picture, every: int) -> None:
    frames = []
    for i in range(15):
        # Each is the larger one in turns, by its box.
        sway = 5 * np.sin(1.3 * i)
        frames.append(scene((ann, 60 + sway), (bea, 400 - sway), clock=i))
    faces = crop(frames, every)
    assert faces.people == 2
    assert np.ptp(lefts(faces)) < 30
    assert faces.found.all()
    assert len(set(shows(faces, ann, bea))) == 1


def test_who_leaves_is_not_whom_the_window_is_about(ann: Picture, bea: Picture) -> None:
    near = cv2.resize(ann, (230, 230), interpolation=cv2.INTER_AREA)
    frames = [scene((bea, 400), clock=i) for i in range(15)]
    for frame in frames[:6]:
        frame[5:235, 30:260] = near  # larger, and first
    faces = crop(frames)
    assert lefts(faces).min() > 350
    assert faces.found.all()
    assert faces.people == 2


@pytest.mark.parametrize("every", [1, 3])
def test_people_who_cross_stay_themselves(ann: Picture, bea: Picture, every: int) -> None:
    frames = []
    for i in range(15):
        left = 20 + 32 * i
        # Bea stands behind Ann where they meet.
        frames.append(scene((bea, 470 - left + 20), (ann, left), clock=i))
    faces = crop(frames, every)
    assert faces.people == 2
    assert shows(faces, ann, bea) == [True] * 15
    assert np.all(np.diff(lefts(faces)[faces.found]) > 0)


@pytest.mark.parametrize("every", [1, 3])
def test_a_cut_to_somebody_else_in_the_same_place(ann: Picture, bea: Picture, every: int) -> None:
    frames = [scene((ann if i < 9 else bea, 240 + i), clock=i) for i in range(15)]
    faces = crop(frames, every)
    assert faces.people == 2
    assert faces.found.tolist() == [True] * 9 + [False] * 6
    for late in faces.crops[9:]:  # the last one of hers, not the other's
        np.testing.assert_array_equal(late, faces.crops[8])


def test_who_walks_past_is_one_person(ann: Picture) -> None:
    """From one used frame to the next by more than a face's width."""
    small = cv2.resize(ann, (60, 60), interpolation=cv2.INTER_AREA)
    frames = []
    for i in range(15):
        frame = scene(clock=i)
        frame[100:160, 5 + 40 * i : 65 + 40 * i] = small
        frames.append(frame)
    faces = crop_faces(np.stack(frames), WINDOW, YuNetDetector(), every=1)
    assert faces is not None
    assert faces.people == 1
    assert faces.found.all()


def test_larger_one_of_two_seen_equally_long(ann: Picture, bea: Picture) -> None:
    frames = [scene((bea, 400), clock=i) for i in range(15)]
    for frame in frames:
        frame[5:235, 30:260] = cv2.resize(ann, (230, 230), interpolation=cv2.INTER_AREA)
    assert lefts(crop(frames)).max() < 300


# --- frames in which the person isn't found -----------------------------------------------


def test_missed_face_is_cropped_where_it_was(ann: Picture) -> None:
    class Blinking(YuNetDetector):
        """Misses the face in a frame whose patch is black."""

        def detect_all(self, frame: Picture) -> list[Box]:
            return super().detect_all(frame) if frame[0, 0, 0] else []

    frames = np.stack([scene((ann, 200 + i), clock=i) for i in range(15)])
    faces = crop_faces(frames, WINDOW, Blinking())
    assert faces is not None
    assert faces.found.tolist() == [i % 3 != 0 for i in range(15)]
    # Equally near are the frames before and after: the earlier one's box, in this very frame.
    assert faces.boxes[3] == faces.boxes[2]
    np.testing.assert_array_equal(faces.crops[3], crop_face(frames[3], faces.boxes[2], WINDOW))


def test_who_left_is_shown_as_last_seen(detector: FaceDetector, ann: Picture) -> None:
    frames = np.stack([scene((ann, 200 + i), clock=i) for i in range(5)] + [scene()] * 3)
    faces = crop_faces(frames, VideoSpec(frames=8), detector)
    assert faces is not None
    assert faces.found.tolist() == [True] * 5 + [False] * 3
    assert faces.found.dtype == np.bool_
    for late in faces.crops[5:]:
        np.testing.assert_array_equal(late, faces.crops[4])


def test_no_face_in_any_frame_is_a_missing_modality(detector: FaceDetector) -> None:
    frames = np.stack([scene(clock=i) for i in range(3)])
    assert crop_faces(frames, VideoSpec(frames=3), detector) is None


# --- a frozen picture ---------------------------------------------------------------------


def test_frozen_picture_shows_nobody(detector: FaceDetector, ann: Picture) -> None:
    still = scene((ann, 200))
    assert crop_faces(np.stack([still] * 8), VideoSpec(frames=8), detector) is None
    # Nor does what a codec makes of it, a level or two off.
    noise = np.random.default_rng(1).integers(-3, 4, (8, *still.shape))
    coded = np.clip(still + noise, 0, 255).astype(np.uint8)
    assert crop_faces(coded, VideoSpec(frames=8), detector) is None


def test_a_picture_counts_for_half_a_window(ann: Picture) -> None:
    moving = [scene((ann, 200 + 3 * i), clock=i) for i in range(5)]
    frames = [*moving, *[moving[-1]] * 10]  # then the camera freezes
    faces = crop(frames)
    assert faces.found.tolist() == [True] * 12 + [False] * 3
    slow = crop([moving[i // 3] for i in range(15)])  # a low frame rate
    assert slow.found.all()


# --- following ----------------------------------------------------------------------------


class Counting(YuNetDetector):
    """Counts its looks; its scores are at most ``score``."""

    name: Detector = "yunet"

    def __init__(self, score: float = 1.0) -> None:
        super().__init__()
        self.looks, self.score = 0, score

    def detect_all(self, frame: Picture) -> list[Box]:
        self.looks += 1
        boxes = super().detect_all(frame)
        return [Box(b.x, b.y, b.width, b.height, min(b.score, self.score)) for b in boxes]


def test_smooth_motion_is_followed(ann: Picture) -> None:
    frames = np.stack([scene((ann, 100 + 6 * i), clock=i) for i in range(15)])
    detector, every = Counting(), Counting()
    followed = crop_faces(frames, WINDOW, detector, every=3)
    detected = crop_faces(frames, WINDOW, every)
    assert followed is not None
    assert detected is not None
    assert (detector.looks, every.looks) == (6, 15)
    assert followed.found.all()
    np.testing.assert_allclose(lefts(followed), lefts(detected), atol=8)


@pytest.mark.parametrize("doubt", ["jump", "score", "one hides"])
def test_doubtful_frames_are_looked_at(ann: Picture, bea: Picture, doubt: str) -> None:
    frames = [scene((ann, 100 + 2 * i), clock=i) for i in range(15)]
    if doubt == "jump":
        frames[4] = scene((ann, 150), clock=4)  # there and back between two detections
    if doubt == "one hides":
        for i in range(6, 15):
            frames[i] = scene((ann, 100 + 2 * i), (bea, 400), clock=i)
    detector = Counting(0.7 if doubt == "score" else 1.0)
    faces = crop_faces(np.stack(frames), WINDOW, detector, every=3)
    assert faces is not None
    assert detector.looks == {"jump": 8, "score": 15, "one hides": 8}[doubt]
    if doubt == "jump":
        assert faces.boxes[4].x > faces.boxes[3].x + 30


def test_faceless_stretch_is_not_searched_through(ann: Picture) -> None:
    frames = [scene((ann, 100 + 2 * i), clock=i) if i < 4 else scene(clock=i) for i in range(15)]
    detector = Counting()
    faces = crop_faces(np.stack(frames), WINDOW, detector, every=3)
    assert faces is not None
    assert detector.looks == 6 + 2  # between 3 and 6 the face was lost


# --- crops --------------------------------------------------------------------------------


def test_crops_shape_and_content(detector: FaceDetector, ann: Picture) -> None:
    spec = VideoSpec(frames=2)
    faces = crop_faces(np.stack([ann, np.roll(ann, 3, axis=1)]), spec, detector)
    assert faces is not None
    assert faces.crops.shape == (2, 224, 224, 3)
    assert faces.crops.dtype == np.uint8
    # The crop is the face: found again, filling most of it.
    again = detector.detect(cv2.copyMakeBorder(faces.crops[0], *[112] * 4, cv2.BORDER_REPLICATE))
    assert again is not None
    assert max(again.width, again.height) > 0.5 * 224
    middle = again.x + again.width / 2, again.y + again.height / 2
    assert middle == pytest.approx((224, 224), abs=40)


def test_face_at_the_frame_border(detector: FaceDetector, ann: Picture) -> None:
    """Half of the hair is cut off by the frame's edge: still a crop of full size."""
    frame = np.ascontiguousarray(ann[60:, 60:])
    faces = crop_faces(frame[None], VideoSpec(frames=1, margin=0.5), detector)
    assert faces is not None
    assert faces.crops.shape == (1, 224, 224, 3)
    box = faces.boxes[0]
    middle = box.x + box.width / 2, box.y + box.height / 2
    assert middle == pytest.approx((FACE[0] - 60, FACE[1] - 60), abs=25)
