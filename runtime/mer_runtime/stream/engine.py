"""The stream's inference: used frames to features, windows to events. No threads, no locks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.crops import crop_face, find_nearest
from mer_runtime.inputs.face import Box, FaceDetector
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.recognizer import Recognizer, softmax
from mer_runtime.stream.checks import check_image
from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.frame_slots import PickedFrame
from mer_runtime.stream.intake import Task, WindowTask
from mer_runtime.stream.smoothing import Smoother
from mer_runtime.stream.statistics import StreamStatistics
from mer_runtime.stream.tracking import Faces, FaceTracker, scale_box

#: A window whose samples all stay within this (of full scale 1; 3 steps of 16 bits) is silent.
SILENCE = 1e-4
#: With all faces, those get an event that were detected in so many of the window's frames:
#: a single detection is often none.
CONFIRMED = 2
#: The key of the one face that is followed, whatever its track's number.
SUBJECT = 0

Picture = NDArray[np.uint8]


@dataclass
class UsedFrame:
    """A frame of a window, looked at once.

    Attributes:
        image: None once no crop can be needed of it.
        size: its height and width.
        found: the faces detected in it, by the number of their track, or by ``SUBJECT``.
        features: (F,) float32 of the crops made of it, by their box.
        crops: (S, S, 3) uint8, made and not encoded yet, by their box.
    """

    image: Picture | None
    size: tuple[int, int]
    found: Mapping[int, Box]
    features: dict[Box, NDArray[np.float32]] = field(default_factory=dict)
    crops: dict[Box, Picture] = field(default_factory=dict)


class StreamEngine:
    """Answers windows from the features of their frames, each computed once.

    A frame without a face takes the nearest frame's box, as in clip mode; it is encoded again
    only when a later face is nearer, so at most twice.

    Args:
        detector: None where no frame will come.

    Raises:
        MerError: what the recogniser raises.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        detector: FaceDetector | None,
        *,
        faces: Faces,
        smoothing: float,
        statistics: StreamStatistics,
    ) -> None:
        self._recognizer = recognizer
        self._detector = detector
        self._faces: Faces = faces
        self._smoothing = smoothing
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

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._used: dict[int, UsedFrame] = {}
        self._first: int | None = None  # the first slot with a frame
        self._before: UsedFrame | None = None  # stands in for the slots before that
        self._last: tuple[int, UsedFrame] | None = None
        self._subject: int | None = None  # the track's number of the one face followed
        self._tracker = FaceTracker(self._faces, self._spec.video.frames)
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
        image = picked.image() if callable(picked.image) else picked.image
        check_image(image)
        assert self._detector is not None
        size = (image.shape[0], image.shape[1])
        with self._statistics.timed("face"):
            boxes = self._detector.detect_all(image)
        found = self._tracker.update(boxes, size, picked.slot or 0)
        if self._faces == "all":
            return UsedFrame(image, size, found)
        for self._subject, box in found.items():  # one, if any
            # The picture is large and serves no more: only faceless ones are cropped later.
            crop = crop_face(image, box, self._spec.video)
            return UsedFrame(None, size, {SUBJECT: box}, crops={box: crop})
        return UsedFrame(image, size, {})

    def _answer(self, window: WindowTask) -> list[StreamEvent]:
        mfcc = self._listen(window)
        frames, real = self._frames_of(window.slot)
        faces = {key: self._boxes_of(frames, key) for key in self._keys_of(frames, real)}
        self._encode(frames, faces.values())
        events = []
        for key, boxes in faces.items():
            features = np.stack([f.features[b] for f, b in zip(frames, boxes, strict=True)])
            found = sum(r and key in f.found for f, r in zip(frames, real, strict=True))
            track = self._subject if key == SUBJECT else key
            events.append(self._event(window, mfcc, features, boxes[-1], track, found))
        if not faces:
            events.append(self._event(window, mfcc, None, None, None, 0))
        self._forget(window.slot + 1 - self._spec.video.frames)
        return events

    def _listen(self, window: WindowTask) -> NDArray[np.float32] | None:
        """The window's MFCCs; None where it is silent."""
        if window.sound is None:
            return None
        audio = self._spec.audio
        with self._statistics.timed("mfcc"):
            waveform = window.sound.waveform(audio.samples, audio.sample_rate)
            if np.abs(waveform).max() <= SILENCE:
                return None
            return compute_mfcc(waveform, audio)

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

    def _keys_of(self, frames: Sequence[UsedFrame], real: Sequence[bool]) -> list[int]:
        """The faces of a window that get an event."""
        seen = Counter(
            key for frame, own in zip(frames, real, strict=True) if own for key in frame.found
        )
        least = CONFIRMED if self._faces == "all" else 1
        return sorted(key for key, count in seen.items() if count >= least)

    def _boxes_of(self, frames: Sequence[UsedFrame], key: int) -> list[Box]:
        """A face's box in each frame of a window, in that frame's pixels."""
        nearest = find_nearest([key in frame.found for frame in frames]) or []
        boxes = []
        for frame, i in zip(frames, nearest, strict=True):
            box = frames[i].found[key]
            same = frame.size == frames[i].size
            boxes.append(box if same else scale_box(box, frames[i].size, frame.size))
        return boxes

    def _encode(self, frames: Sequence[UsedFrame], faces: Iterable[Sequence[Box]]) -> None:
        """Compute the features that a window's faces still lack, in as few batches as can be."""
        lacking: dict[tuple[int, Box], UsedFrame] = {}
        for boxes in faces:
            for frame, box in zip(frames, boxes, strict=True):
                if box not in frame.features:
                    lacking[id(frame), box] = frame
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
        assert frame.image is not None  # kept wherever the box isn't the frame's own
        return crop_face(frame.image, box, self._spec.video)

    def _event(
        self,
        window: WindowTask,
        mfcc: NDArray[np.float32] | None,
        features: NDArray[np.float32] | None,
        box: Box | None,
        track: int | None,
        found: int,
    ) -> StreamEvent:
        label, probabilities, settled = None, {}, False
        face, voice = features is not None, mfcc is not None
        if mfcc is not None or features is not None:
            with self._statistics.timed("head"):
                logits = self._recognizer.classify(mfcc, features)
            shares = softmax(logits / self._recognizer.bundle.temperature)
            shares = self._smoother.smooth(shares, track, window.time)
            labels = self._spec.labels
            label = labels[int(shares.argmax())]
            settled = self._recognizer.is_settled(shares, face=face, voice=voice)
            probabilities = dict(zip(labels, shares.tolist(), strict=True))
        self._statistics.events += 1
        return StreamEvent(
            time=window.time,
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
        )

    def _forget(self, first: int) -> None:
        """Drop what no later window holds: the slots before ``first``."""
        for slot in [slot for slot in self._used if slot < first]:
            del self._used[slot]
        if self._first is not None and self._first <= first:
            self._before = None
