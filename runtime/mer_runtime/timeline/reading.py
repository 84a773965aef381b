"""A clip read from beginning to end, through the recogniser of streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import cv2

from mer_runtime.closing import Closing
from mer_runtime.engines.cores import usable_cores
from mer_runtime.errors import OutputError
from mer_runtime.files import replacing
from mer_runtime.inputs.sparing import SparingChoice
from mer_runtime.inputs.tracking import Faces
from mer_runtime.live.recording import Recorder, check_recording
from mer_runtime.live.sources.address import Address
from mer_runtime.live.sources.captured import Picture, Sound
from mer_runtime.live.sources.clock import RecordedClock
from mer_runtime.live.sources.container import OpenSource
from mer_runtime.model import Model
from mer_runtime.stream import StreamEvent, StreamRecognizer
from mer_runtime.stream.checks import count_hop_slots
from mer_runtime.timeline.gathering import gather_sound
from mer_runtime.timeline.summary import Summary

#: Seconds beyond a step for which an answer is drawn into what follows it.
SHOWN_FOR = 1.0


class Timeline(Closing, Iterator[StreamEvent]):
    """The answers of a whole clip in order of time, computed as they are asked for.

    What is held at any moment is a window and what is decoded ahead of it: some seconds of the
    clip, however long it is. Closing it, or leaving its ``with`` block, ends it early.

    Args:
        model: a ``Recognizer``.
        faces, hop: as for ``StreamRecognizer``.
        audio_track: the track to listen to, counted from 1; by default the first in which there
            has been a voice, else any sound.
        overlay: an .mp4 to write, with the whole clip and its answers drawn in, once it was read
            to its end. It takes longer then.

    Attributes:
        source: the clip's path.
        step: seconds from answer to answer; ``window``, those that each is about.
        labels: in the order of probabilities.
        faces: ``one`` or ``all``.
        duration: seconds that the clip says it takes; None where it doesn't, or isn't open yet.
        summary: of the answers given so far.
        notes: what of the clip couldn't be read so far.

    Raises:
        MediaError: on reading: the clip can't be read.
        OutputError: ``overlay`` can't be written, or is the clip.
        SpecError: ``hop`` isn't a multiple of the slot.
    """

    def __init__(
        self,
        model: Model,
        path: str | Path,
        *,
        faces: Faces = "one",
        hop: float | None = None,
        audio_track: int | None = None,
        overlay: str | Path | None = None,
    ) -> None:
        video = model.spec.video
        self.source = str(path)
        self.step = count_hop_slots(hop, video) * video.slot
        self.window = video.window
        self.labels = model.spec.labels
        self.summary = Summary()
        self.duration: float | None = None
        self.notes = ""
        self._model, self._path = model, path
        self.faces: Faces = faces
        self._track = audio_track
        self._overlay = None if overlay is None else check_recording(overlay, self.source)
        self._drawn: list[StreamEvent] = []  # the last hop's answers
        self._events = self._read()

    def __next__(self) -> StreamEvent:
        with _opencv_in_one_thread():
            return next(self._events)

    def close(self) -> None:
        """End it, and let go of the file."""
        self._events.close()

    def _read(self) -> Generator[StreamEvent, None, None]:
        address = Address("file", self.source, self.source)
        ready: deque[StreamEvent] = deque()
        with OpenSource(
            address, Event(), video=True, audio=True, timeout=0.0, audio_track=self._track
        ) as source:
            self.duration = source.duration
            with self._recording(source) as recorder, self._open(source, ready) as stream:
                clock, slot = RecordedClock(Event(), paced=False), self._model.spec.video.slot
                sparing = None if recorder else SparingChoice(slot, lambda: clock.first)
                for item in gather_sound(source.items(clock, sparing), slot):
                    if isinstance(item, Picture):
                        stream.push_frame(item.image, item.time)
                    else:
                        samples = item.samples if item.channels is None else item.channels
                        stream.push_audio(samples, item.rate, item.time, channels_last=False)
                    yield from self._count(ready)
                    if recorder is not None:
                        recorder.add(item, self._answers_at(item))
                self.notes = source.notes
                stream.finish()
                yield from self._count(ready)
                self.summary.finish()

    def _open(self, source: OpenSource, ready: deque[StreamEvent]) -> StreamRecognizer:
        return StreamRecognizer(
            self._model,
            hop=self.step,
            faces=self.faces,
            live=False,
            video=source.has_video,
            audio=source.has_audio,
            threads=usable_cores() if self._overlay is None else 1,
            on_event=ready.append,
        )

    @contextmanager
    def _recording(self, source: OpenSource) -> Iterator[Recorder | None]:
        """The overlay's recorder; its file is there whole or not at all."""
        if self._overlay is None:
            yield None
            return
        with replacing(self._overlay) as part:
            kinds = {"video": source.has_video, "audio": source.has_audio}
            recorder = Recorder(part, **kinds, live=False)
            try:
                yield recorder
            except BaseException:
                with suppress(OutputError):
                    recorder.close()
                raise
            recorder.close()

    def _answers_at(self, item: Picture | Sound) -> list[StreamEvent]:
        """The answers to draw into an item: the last hop's, as long as they hold."""
        return [e for e in self._drawn if abs(item.time - e.time) <= self.step + SHOWN_FOR]

    def _count(self, ready: deque[StreamEvent]) -> Iterator[StreamEvent]:
        while ready:
            event = ready.popleft()
            self.summary.add(event)
            if self._drawn and self._drawn[0].time != event.time:
                self._drawn.clear()
            self._drawn.append(event)
            yield event


@contextmanager
def _opencv_in_one_thread() -> Iterator[None]:
    """Threads that take a picture each serve better than OpenCV's own within one picture."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
