"""The stream's inference: used frames to features, windows to events. No threads, no locks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mer_runtime.feeds import name_shown
from mer_runtime.inputs.crops import crop_face, find_nearest
from mer_runtime.inputs.face import Box
from mer_runtime.inputs.motion import Sketch, moves_on, sketch
from mer_runtime.inputs.notes import CANCELLED, describe_unusable
from mer_runtime.inputs.tracking import (
    Face,
    Faces,
    FaceTracker,
    choose_person,
    list_people,
    scale_box,
    shows,
)
from mer_runtime.inputs.window_faces import still_shows
from mer_runtime.model import Model, softmax
from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.frame_slots import PickedFrame
from mer_runtime.stream.intake import Task, WindowTask
from mer_runtime.stream.senses import Senses
from mer_runtime.stream.smoothing import Smoother
from mer_runtime.stream.statistics import StreamStatistics

Picture = NDArray[np.uint8]


@dataclass
class UsedFrame:
    """A frame of a window, looked at once. Slots that show the same picture share one.

    Attributes:
        image: None once no crop can be needed of it.
        size: its height and width.
        sketch: for telling whether the picture moves on.
        found: the faces seen in it, by the number of their track.
        features: (F,) float32 of the crops made of it, by their box.
        crops: (S, S, 3) uint8, made and not encoded yet, by their box.
        gone: boxes that show something else in it than the face that they are for.
    """

    image: Picture | None
    size: tuple[int, int]
    sketch: Sketch
    found: Mapping[int, Face]
    features: dict[Box, NDArray[np.float32]] = field(default_factory=dict)
    crops: dict[Box, Picture] = field(default_factory=dict)
    gone: set[Box] = field(default_factory=set)


#: A crop: the frame that it is made of, and the box.
Place = tuple[UsedFrame, Box]


class StreamEngine:
    """Answers windows from the features of their frames, each computed once.

    Faces are looked for in every used frame: what comes next isn't known, so there is nothing to
    follow them to. A frame in which the person isn't seen takes the nearest frame's box, or its
    very crop, as in clip mode; it is encoded again only when a later face is nearer, so at
    most twice.

    Args:
        senses: look at frames and listen to windows.
        video, audio: whether frames and sound may come.

    Raises:
        MerError: what the recogniser raises.
    """

    def __init__(
        self,
        recognizer: Model,
        senses: Senses,
        *,
        faces: Faces,
        smoothing: float,
        video: bool,
        audio: bool,
        statistics: StreamStatistics,
    ) -> None:
        self._recognizer = recognizer
        self._senses = senses
        self._faces: Faces = faces
        self._smoothing = smoothing
        self._video, self._audio = video, audio
        self._unusable = 0  # samples that were no numbers, when the last window was answered
        self._statistics = statistics
        self._spec = recognizer.spec
        self._epoch = -1

    def run(self, task: Task) -> list[StreamEvent]:
        """Do the work; a window gives an event, or one for each face."""
        if task.epoch != self._epoch:
            self._begin(task.epoch)
        for picked in task.frames:
            self._look(picked)
        return self._answer(task.window) if task.window else []

    def finish(self) -> Iterator[StreamEvent]:
        """What is left to be answered: nothing, here."""
        return iter(())

    def close(self) -> None:
        """Let go of threads, where there are any."""

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._used: dict[int, UsedFrame] = {}
        self._first: int | None = None  # the first slot with a frame
        self._before: UsedFrame | None = None  # stands in for the slots before that
        self._last: tuple[int, UsedFrame] | None = None
        self._picture: Picture | None = None  # the last one, for telling repeated ones
        self._person: int | None = None  # whom the last window was about
        self._tracker = FaceTracker(self._spec.video.frames)
        self._smoother = Smoother(self._smoothing, self._spec.video.window)

    def _look(self, picked: PickedFrame) -> None:
        """Detect the faces of a frame; one that several slots use is looked at once."""
        if self._last is not None and self._last[0] == picked.frame:
            used = self._last[1]
        else:
            used = self._detect(picked)
        self._last = (picked.frame, used)
        if picked.slot is None:
            self._before = used
        else:
            self._used[picked.slot] = used
            self._first = picked.slot if self._first is None else self._first

    def _detect(self, picked: PickedFrame) -> UsedFrame:
        image = self._senses.show(picked)
        before = self._picture
        if self._last is not None and before is not None and np.array_equal(image, before):
            return self._last[1]
        self._picture = image
        size = (image.shape[0], image.shape[1])
        with self._statistics.timed("face"):
            found = self._tracker.update(self._senses.find(picked, image), size, picked.slot or 0)
        # The picture is large, and serves no more where somebody was seen.
        crops = {face.box: crop_face(image, face.box, self._spec.video) for face in found.values()}
        return UsedFrame(None if found else image, size, sketch(image), found, crops=crops)

    def _answer(self, window: WindowTask) -> list[StreamEvent]:
        mfcc = self._listen(window)
        frames, real = self._frames_of(window.slot)
        seen, stale = self._seen_in(frames, real)
        notes = tuple(self._note(window, frames, stale))
        people = list_people(seen)
        faces = {number: self._places_of(frames, number) for number in self._choose(seen, people)}
        self._encode(places for places, _ in faces.values())
        count = max(len(people), min(len(faces), 1))
        events = []
        for number, (places, box) in faces.items():
            features = np.stack([frame.features[box] for frame, box in places])
            found = sum(number in one for one in seen)
            events.append(self._event(window, mfcc, features, box, number, found, count, notes))
        if not faces:
            events.append(self._event(window, mfcc, None, None, None, 0, 0, notes))
        self._forget(window.slot + 1 - self._spec.video.frames)
        return events

    def _seen_in(
        self, frames: Sequence[UsedFrame], real: Sequence[bool]
    ) -> tuple[list[Mapping[int, Face]], int]:
        """The faces of each of a window's slots, and how many slots show nothing new.

        One that has no picture, or a stale one, has no faces; none has where the picture is frozen.
        """
        own = [frame for frame, is_real in zip(frames, real, strict=True) if is_real]
        enough = min(2, self._spec.video.frames)  # one picture doesn't tell
        if len(own) < enough or not moves_on([frame.sketch for frame in own]):
            return [], len(frames)
        seen: list[Mapping[int, Face]] = []
        stale = 0
        last, repeated = None, 0
        for frame, is_real in zip(frames, real, strict=True):
            # The first one also stands in for what was before it, however long.
            repeated = repeated + 1 if frame is last and frame is not self._before else 0
            counts = is_real and still_shows(repeated, len(frames))
            seen.append(frame.found if counts else {})
            stale += not counts
            last = frame
        return seen, stale

    def _note(self, window: WindowTask, frames: Sequence[UsedFrame], stale: int) -> Iterator[str]:
        """What is missing of a window, or was mended in it."""
        if self._video and not frames:
            yield "there is no picture in this window"
        elif frames and stale == len(frames):
            yield "the picture stands still"
        elif stale:
            yield f"the picture stands still or is missing in {stale} of {len(frames)} frames"
        if self._audio and window.sound is None:
            yield "there is no sound in this window"
        elif window.sound is not None and window.sound.cancelled:
            yield CANCELLED
        unusable = self._statistics.non_finite
        if unusable > self._unusable:
            yield describe_unusable(unusable - self._unusable)
        self._unusable = unusable

    def _choose(self, seen: Sequence[Mapping[int, Face]], people: Sequence[int]) -> Sequence[int]:
        """The tracks that get an event: the person that the window is about, or all people."""
        if self._faces == "all":
            return people
        self._person = choose_person(seen, self._person)
        return [] if self._person is None else [self._person]

    def _listen(self, window: WindowTask) -> NDArray[np.float32] | None:
        """The window's MFCCs; None where no voice is heard."""
        if window.sound is None:
            return None
        with self._statistics.timed("mfcc"):
            return self._senses.listen(window.sound)

    def _frames_of(self, end: int) -> tuple[list[UsedFrame], list[bool]]:
        """A frame for each slot of a window, and whether the slot had one of its own.

        The others (a camera that vanished, frames that were dropped) take the nearest slot's.
        Both are empty where no slot has a frame.
        """
        slots = range(end - self._spec.video.frames, end)
        held = [self._used.get(k) or (self._before if self._is_early(k) else None) for k in slots]
        real = [frame is not None for frame in held]
        nearest = find_nearest(real)
        if nearest is None:
            return [], []
        return [frame for i in nearest if (frame := held[i]) is not None], real

    def _is_early(self, slot: int) -> bool:
        return self._first is None or slot < self._first

    def _places_of(self, frames: Sequence[UsedFrame], number: int) -> tuple[list[Place], Box]:
        """Where a person's crop comes from in each frame of a window, as ``crop_person`` has it.

        And the nearest box in the pixels of the last frame.
        """
        nearest = find_nearest([number in frame.found for frame in frames]) or []
        places: list[Place] = []
        here = Face(Box(0, 0, 0, 0))
        for frame, i in zip(frames, nearest, strict=True):
            face = frames[i].found[number]
            here = face
            if frame.size != frames[i].size:
                here = Face(scale_box(face.box, frames[i].size, frame.size), face.look)
            stays = frame is frames[i] or self._shows(frame, here)
            places.append((frame, here.box) if stays else (frames[i], face.box))
        return places, here.box

    def _shows(self, frame: UsedFrame, face: Face) -> bool:
        """Whether a frame in which the person isn't seen may be cropped all the same."""
        if frame.image is None or face.box in frame.gone:
            return False
        if face.box not in frame.features and not shows(frame.image, face):
            frame.gone.add(face.box)
            return False
        return True

    def _encode(self, faces: Iterable[Sequence[Place]]) -> None:
        """Compute the features that a window's faces still lack, in as few batches as can be."""
        lacking = {
            (id(frame), box): frame
            for places in faces
            for frame, box in places
            if box not in frame.features
        }
        new = [(frame, box) for (_, box), frame in lacking.items()]
        most = self._spec.video.frames
        for first in range(0, len(new), most):
            batch = new[first : first + most]
            crops = np.stack([self._crop(frame, box) for frame, box in batch])
            with self._statistics.timed("encode"):
                features = self._recognizer.encode(crops)
            self._statistics.crops += len(batch)
            for (frame, box), feature in zip(batch, features, strict=True):
                frame.features[box] = feature.copy()  # not a view of the whole batch

    def _crop(self, frame: UsedFrame, box: Box) -> Picture:
        if box in frame.crops:
            return frame.crops.pop(box)
        assert frame.image is not None  # kept wherever nobody was seen
        return crop_face(frame.image, box, self._spec.video)

    def _event(
        self,
        window: WindowTask,
        mfcc: NDArray[np.float32] | None,
        features: NDArray[np.float32] | None,
        box: Box | None,
        track: int | None,
        found: int,
        people: int,
        notes: tuple[str, ...],
    ) -> StreamEvent:
        label, probabilities, settled = None, {}, False
        face, voice = features is not None, mfcc is not None
        if mfcc is not None or features is not None:
            with self._statistics.timed("head"):
                logits = self._recognizer.classify(mfcc, features)
            shown = name_shown(face=face, voice=voice)
            shares = softmax(logits, self._recognizer.bundle.temperatures.of(shown))
            shares = self._smoother.smooth(shares, track, window.time)
            labels = self._spec.labels
            label = labels[int(shares.argmax())]
            settled = self._recognizer.is_settled(shares, face=face, voice=voice)
            probabilities = dict(zip(labels, shares.tolist(), strict=True))
        self._statistics.events += 1
        return StreamEvent(
            start=window.time - window.filled * self._spec.video.window,
            end=window.time,
            label=label,
            probabilities=probabilities,
            face=face,
            voice=voice,
            settled=settled,
            filled=window.filled,
            faces_found=found,
            box=box,
            track=track,
            age=max(monotonic() - window.arrival, 0.0),
            dropped=self._statistics.dropped,
            people=people,
            notes=notes,
        )

    def _forget(self, first: int) -> None:
        """Drop what no later window holds: the slots before ``first``."""
        for slot in [slot for slot in self._used if slot < first]:
            del self._used[slot]
        if self._first is not None and self._first <= first:
            self._before = None
