"""What passes between looking at a window's frames and answering it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.face import Box
from mer_runtime.inputs.motion import Sketch
from mer_runtime.inputs.tracking import Face
from mer_runtime.stream.intake import WindowTask

Picture = NDArray[np.uint8]


@dataclass(eq=False)
class Feature:
    """A crop, and the numbers that describe it once it was encoded.

    Attributes:
        crop: (S, S, 3) uint8; None once it isn't needed.
        values: (F,) float32; None until then.
    """

    crop: Picture | None
    values: NDArray[np.float32] | None = None


@dataclass
class UsedFrame:
    """A frame of a window, looked at once. Slots that show the same picture share one.

    Attributes:
        image: None once no crop can be needed of it.
        size: its height and width.
        sketch: for telling whether the picture moves on.
        found: the faces seen in it, by the number of their track.
        features: of the crops that windows take of it, by their box.
        crops: (S, S, 3) uint8, made and not taken yet, by their box.
        gone: boxes that show something else in it than the face that they are for.
    """

    image: Picture | None
    size: tuple[int, int]
    sketch: Sketch
    found: Mapping[int, Face]
    features: dict[Box, Feature] = field(default_factory=dict)
    crops: dict[Box, Picture] = field(default_factory=dict)
    gone: set[Box] = field(default_factory=set)


@dataclass(frozen=True)
class FaceView:
    """A person in a window.

    Attributes:
        track: the person's number.
        box: in the pixels of the last frame, the nearest one.
        found: in how many of the window's frames the person is seen.
        features: one for each of them.
    """

    track: int
    box: Box
    found: int
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class WindowLogits:
    """What the network says of a window.

    Attributes:
        voice: whether one is heard.
        faces: logits (classes,) for each of the view's faces; without any, one entry for the
            voice alone. None where there is neither.
    """

    voice: bool
    faces: tuple[NDArray[np.float32] | None, ...]


@dataclass(frozen=True)
class WindowView:
    """What a window's frames show.

    Attributes:
        epoch: the task's.
        faces: those that get an event each.
        people: how many persons are in it.
    """

    epoch: int
    window: WindowTask
    faces: tuple[FaceView, ...]
    people: int
    notes: tuple[str, ...]
