"""The crops that a stream's window takes of its frames for one person."""

from __future__ import annotations

from collections.abc import Sequence

from mer_runtime.inputs.crops import crop_face, find_nearest
from mer_runtime.inputs.face import Box
from mer_runtime.inputs.tracking import Face, scale_box, shows
from mer_runtime.spec import VideoSpec
from mer_runtime.stream.view import Feature, Picture, UsedFrame


def list_features(
    frames: Sequence[UsedFrame], number: int, spec: VideoSpec
) -> tuple[list[Feature], Box]:
    """A person's crop from each frame of a window, as ``crop_person`` has it.

    And the nearest box in the pixels of the last frame.
    """
    nearest = find_nearest([number in frame.found for frame in frames]) or []
    features: list[Feature] = []
    here = Face(Box(0, 0, 0, 0))
    for frame, i in zip(frames, nearest, strict=True):
        face = frames[i].found[number]
        here = face
        if frame.size != frames[i].size:
            here = Face(scale_box(face.box, frames[i].size, frame.size), face.look)
        stays = frame is frames[i] or _shows(frame, here)
        features.append(
            _describe(frame, here.box, spec) if stays else _describe(frames[i], face.box, spec)
        )
    return features, here.box


def _shows(frame: UsedFrame, face: Face) -> bool:
    """Whether a frame in which the person isn't seen may be cropped all the same."""
    if frame.image is None or face.box in frame.gone:
        return False
    if face.box not in frame.features and not shows(frame.image, face):
        frame.gone.add(face.box)
        return False
    return True


def _describe(frame: UsedFrame, box: Box, spec: VideoSpec) -> Feature:
    """What stands for a crop of a frame: one for all windows."""
    if box not in frame.features:
        frame.features[box] = Feature(_crop(frame, box, spec))
    return frame.features[box]


def _crop(frame: UsedFrame, box: Box, spec: VideoSpec) -> Picture:
    if box in frame.crops:
        return frame.crops.pop(box)
    assert frame.image is not None  # kept wherever nobody was seen
    return crop_face(frame.image, box, spec)
