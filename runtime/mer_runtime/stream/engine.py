"""The stream's inference: used frames to features, windows to events. No threads, no locks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.notes import CANCELLED, describe_unusable
from mer_runtime.inputs.tracking import Face, Faces, choose_person, list_people
from mer_runtime.model import Model
from mer_runtime.stream.crops import list_features
from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.intake import Task, WindowTask
from mer_runtime.stream.senses import Senses
from mer_runtime.stream.smoothing import Smoother
from mer_runtime.stream.statistics import StreamStatistics
from mer_runtime.stream.used_frames import UsedFrames
from mer_runtime.stream.view import FaceView, Feature, UsedFrame, WindowLogits, WindowView


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
        self._epoch = -1  # of the frames looked at
        self._answered = -1  # of the windows answered

    def run(self, task: Task) -> list[StreamEvent]:
        """Do the work; a window gives an event, or one for each face."""
        view = self.view(task)
        return [] if view is None else self.answer(view, *self.compute([view]))

    def view(self, task: Task) -> WindowView | None:
        """Look at a task's frames: what its window shows, if it has one."""
        if task.epoch != self._epoch:
            self._begin(task.epoch)
        for picked in task.frames:
            self._frames.look(picked)
        return self._view(task.window) if task.window else None

    def compute(self, views: Sequence[WindowView]) -> list[WindowLogits]:
        """What the network says of some windows, for ``answer``. Another thread may do it."""
        self._encode([one for view in views for face in view.faces for one in face.features])
        return [self._classify(view) for view in views]

    def answer(self, view: WindowView, logits: WindowLogits) -> list[StreamEvent]:
        """The events of a window; windows come in their order."""
        if view.epoch != self._answered:
            self._answered = view.epoch
            self._smoother = Smoother(self._smoothing, self._spec.video.window)
        faces = view.faces or (None,)
        return [
            self._event(view, face, logits.voice, one)
            for face, one in zip(faces, logits.faces, strict=True)
        ]

    def finish(self) -> Iterator[StreamEvent]:
        """What is left to be answered: nothing, here."""
        return iter(())

    def close(self) -> None:
        """Let go of threads, where there are any."""

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._frames = UsedFrames(self._senses, self._spec.video, self._statistics)
        self._person: int | None = None  # whom the last window was about

    def _view(self, window: WindowTask) -> WindowView:
        frames, real = self._frames.list_window(window.slot)
        seen, stale = self._frames.list_faces(frames, real)
        notes = tuple(self._note(window, frames, stale))
        people = list_people(seen)
        faces = []
        for number in self._choose(seen, people):
            features, box = list_features(frames, number, self._spec.video)
            found = sum(number in one for one in seen)
            faces.append(FaceView(number, box, found, tuple(features)))
        self._frames.forget(window.slot + 1 - self._spec.video.frames)
        return WindowView(
            self._epoch, window, tuple(faces), max(len(people), min(len(faces), 1)), notes
        )

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

    def _encode(self, features: Sequence[Feature]) -> None:
        """Describe the crops that aren't yet, in as few batches as can be."""
        new = [one for one in dict.fromkeys(features) if one.values is None]
        most = self._spec.video.frames
        for first in range(0, len(new), most):
            batch = new[first : first + most]
            crops = np.stack([one.crop for one in batch if one.crop is not None])
            with self._statistics.timed("encode"):
                values = self._recognizer.encode(crops)
            self._statistics.crops += len(batch)
            for one, described in zip(batch, values, strict=True):
                one.crop, one.values = None, described.copy()  # not a view of the whole batch

    def _classify(self, view: WindowView) -> WindowLogits:
        mfcc = self._listen(view.window)
        if mfcc is None and not view.faces:
            return WindowLogits(False, (None,))
        faces = [
            np.stack([one.values for one in face.features if one.values is not None])
            for face in view.faces
        ]
        with self._statistics.timed("head"):
            logits = [self._recognizer.classify(mfcc, face) for face in faces or (None,)]
        return WindowLogits(mfcc is not None, tuple(logits))

    def _event(
        self,
        view: WindowView,
        face: FaceView | None,
        voice: bool,
        logits: NDArray[np.float32] | None,
    ) -> StreamEvent:
        window = view.window
        track = None if face is None else face.track
        label, probabilities, settled = None, {}, False
        if logits is not None:
            shares = self._recognizer.find_probabilities(logits, face=face is not None, voice=voice)
            shares = self._smoother.smooth(shares, track, window.time)
            labels = self._spec.labels
            label = labels[int(shares.argmax())]
            settled = self._recognizer.is_settled(shares, face=face is not None, voice=voice)
            probabilities = dict(zip(labels, shares.tolist(), strict=True))
        self._statistics.events += 1
        return StreamEvent(
            start=window.time - window.filled * self._spec.video.window,
            end=window.time,
            label=label,
            probabilities=probabilities,
            face=face is not None,
            voice=voice,
            settled=settled,
            filled=window.filled,
            faces_found=0 if face is None else face.found,
            box=None if face is None else face.box,
            track=track,
            age=max(monotonic() - window.arrival, 0.0),
            dropped=self._statistics.dropped,
            people=view.people if face is not None else 0,
            notes=view.notes,
        )
