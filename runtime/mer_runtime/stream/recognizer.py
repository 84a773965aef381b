"""The live recogniser: frames and sound from any thread, an engine thread, events."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from threading import Condition, Thread, current_thread
from time import monotonic
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from mer_runtime.closing import Closing
from mer_runtime.errors import SpecError
from mer_runtime.inputs.face import FaceDetector
from mer_runtime.inputs.picture import check_frame
from mer_runtime.inputs.sound import ChannelOrder, check_sound
from mer_runtime.inputs.tracking import Faces
from mer_runtime.inputs.waveform import ChannelMixer
from mer_runtime.model import Model
from mer_runtime.stream.ahead import open_engine
from mer_runtime.stream.audio_ring import clean
from mer_runtime.stream.checks import check_time, count_hop_slots
from mer_runtime.stream.engine import StreamEngine
from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.event_queue import EventQueue
from mer_runtime.stream.frame_slots import Image
from mer_runtime.stream.intake import Intake
from mer_runtime.stream.statistics import StreamStatistics


class StreamRecognizer(Closing):
    """Recognises emotions in a running stream, every ``hop`` seconds.

    >>> with StreamRecognizer(Recognizer.load("ia-compact-int8")) as stream:        # doctest: +SKIP
    ...     ...  # other threads call stream.push_frame and stream.push_audio
    ...     for event in stream.events():
    ...         print(event.time, event.label)

    Times are seconds on one clock of the source's choice, the same for frames and sound. Slots
    (``spec.video.slot``, 0.24 s) and hops are counted from the first frame or sample pushed, or
    from ``origin``. In a slot the frame is used that is on screen at its middle; the answer for
    a full window is that of ``Recognizer.analyse`` for the same frames and samples.

    Args:
        recognizer: used by the engine alone from here on; it isn't safe for several threads.
        hop: seconds from event to event, a multiple of the slot; by default two slots.
        smoothing: time constant in seconds of an exponential average of the probabilities;
            0 is none.
        faces: ``one`` is about one person (the one seen longest in the window, of several the
            one with the largest face; it stays with that one while it is seen half as long as
            another); ``all`` gives an event for each person in view. Each has a ``track``.
        detector: by default the recogniser's own.
        live: True computes in a thread of its own, and when that is behind drops the oldest
            used frames and skips hops: pushing never waits. False computes in the pushing
            thread and drops nothing: for files, as fast as possible.
        video, audio: which kinds may be pushed. A window waits for a kind that is behind (for
            ``PATIENCE`` seconds live, a whole window otherwise), never for one that is False.
        origin: the clock's time from which slots are counted.
        threads: where it isn't live, so many look for faces and listen while answers come some
            seconds later; faces are followed between two detections then, as in clip mode.
        on_event: called with each event in the engine's thread instead of queueing it for
            ``events``. Keep it short.

    Raises:
        SpecError: ``hop`` isn't a multiple of the slot, or another option is out of range.
    """

    def __init__(
        self,
        recognizer: Model,
        *,
        hop: float | None = None,
        smoothing: float = 0.0,
        faces: Faces = "one",
        detector: FaceDetector | None = None,
        live: bool = True,
        video: bool = True,
        audio: bool = True,
        origin: float | None = None,
        threads: int = 1,
        on_event: Callable[[StreamEvent], None] | None = None,
    ) -> None:
        video_spec = recognizer.spec.video
        slots = count_hop_slots(hop, video_spec)
        if not (math.isfinite(smoothing) and smoothing >= 0):
            raise SpecError(f"smoothing must be 0 or more seconds, not {smoothing}")
        if faces not in get_args(Faces):
            raise SpecError(f"faces must be 'one' or 'all', not {faces!r}")
        if not (video or audio):
            raise SpecError("a stream needs video or audio, or both")
        if origin is not None:
            check_time(origin)
        self._statistics = StreamStatistics()
        self._intake = Intake(
            recognizer.spec,
            slots,
            self._statistics,
            live=live,
            video=video,
            audio=audio,
            origin=origin,
        )
        engine = partial(
            StreamEngine,
            recognizer,
            faces=faces,
            smoothing=smoothing,
            video=video,
            audio=audio,
            statistics=self._statistics,
        )
        found = (detector or recognizer.find_detector()) if video else None
        self._engine = open_engine(engine, recognizer.spec.audio, found, 1 if live else threads)
        self._slot = video_spec.slot
        self._live = live
        self._video = video
        self._audio = audio
        self._order, self._mixer = ChannelOrder(), ChannelMixer()
        self._state = Condition()
        self._events = EventQueue(self._state, self._statistics, live=live)
        self._give = on_event or self._events.add
        self._finishing = False
        self._closed = False
        self._thread: Thread | None = None
        if live:
            self._thread = Thread(target=self._work, name="mer-stream", daemon=True)
            self._thread.start()

    @property
    def live(self) -> bool:
        """Whether it computes in a thread of its own."""
        return self._live

    @property
    def statistics(self) -> StreamStatistics:
        """A copy of the counters so far."""
        with self._state:
            return copy.deepcopy(self._statistics)

    def push_frame(self, image: Image, time: float) -> None:
        """Take a frame that is on screen from ``time`` on. Any thread; never waits if live.

        Args:
            image: (H, W, 3) uint8 RGB, upright. It is kept, not copied: don't write to it
                afterwards. A function that returns it is called only if the frame is used (4
                of 30 in a second), in the engine's thread: it saves converting the others.
            time: seconds on the stream's clock. A frame older than one before is passed over.

        Raises:
            SpecError: not such a picture, the time isn't a finite number or beyond 1e10, or the
                stream was opened without video.
        """
        check_time(time)
        if not self._video:
            raise SpecError("this stream was opened without video")
        if not callable(image):
            check_frame(image)
        arrival = monotonic()
        with self._state:
            if self._is_over():
                return
            self._intake.add_frame(image, time, arrival)
            self._proceed()

    def push_audio(
        self,
        samples: NDArray[Any],
        sample_rate: int,
        time: float,
        *,
        channels_last: bool | None = None,
    ) -> None:
        """Take a chunk of sound whose first sample is at ``time``. Any thread; never waits if live.

        Args:
            samples: (n,), (n, channels) or (channels, n); floats in [-1, 1], or integers of
                full scale (uint8, int16, int32). Channels are averaged, unless they cancel each
                other out in a window: then the loudest counts. Values that aren't finite become
                zeros.
                ``mer_runtime.mix_down`` makes the mean of an ``av.AudioFrame``.
            sample_rate: Hz; may change in mid-stream.
            time: seconds on the stream's clock.
            channels_last: True for (n, channels), as sound cards' libraries give it, False for
                (channels, n), as PyAV does. By default that is found out, which takes more than
                64 samples, or at least 16 of fewer channels, or longer chunks before.

        Raises:
            SpecError: not such an array, it isn't certain which axis has the channels, no such
                rate, the time isn't a finite number or beyond
                1e10, or the stream was opened without audio.
        """
        check_time(time)
        if not self._audio:
            raise SpecError("this stream was opened without audio")
        check_sound(samples, sample_rate)
        sample_rate = int(sample_rate)  # some libraries give 44100.0
        arrival = monotonic()
        mixes = self._mixer.mix(self._order.arrange(samples, channels_last), sample_rate)
        # Long chunks in pieces, so that windows are answered before their sound is overwritten.
        piece = max(int(self._slot * sample_rate), 1)
        self._change_rate(sample_rate)
        with self._state:
            sound = clean(np.stack([mix for mix in mixes if mix is not None]), self._statistics)
            for first in range(0, sound.shape[1], piece):
                if self._is_over():
                    return
                part = sound[:, first : first + piece]
                self._intake.add_sound(part, sample_rate, time + first / sample_rate, arrival)
                self._proceed()

    def _change_rate(self, rate: int) -> None:
        """Bring the sound that is held to another rate: not under the lock, as it takes long."""
        with self._state:
            ring = self._intake.ring
            conversion = ring.conversion(rate)
        if conversion is not None:
            converted = conversion.run()
            with self._state:
                # Where another thread added sound meanwhile, adding more converts what is held.
                ring.convert(conversion, converted)

    def events(self) -> Iterator[StreamEvent]:
        """The events in order of time; each is given once.

        Live, it waits for the next one and ends after ``finish`` or ``close``. Otherwise it ends
        as soon as all that is ready has been given: call it again after the next push.

        Raises:
            MerError: what stopped the engine.
        """
        return self._events.read()

    def finish(self) -> None:
        """Answer what is still waiting, up to the slot that ends nearest, and end ``events``.

        Raises:
            MerError: what stopped the engine.
        """
        with self._state:
            if not self._live and not self._is_over():
                self._answer_all(flush=True)
            self._finishing = True
            self._state.notify_all()
        self._join()
        self._events.end()
        self._events.raise_failure()

    def close(self) -> None:
        """Stop at once, without a last answer. Also what leaving the ``with`` block does."""
        with self._state:
            self._closed = True
        self._events.end()
        self._join()
        self._engine.close()

    def _join(self) -> None:
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join()

    def _is_over(self) -> bool:
        return self._finishing or self._closed or self._events.failure is not None

    def _proceed(self) -> None:
        """See to what was just pushed: here, or by waking the engine's thread."""
        if self._live:
            self._state.notify_all()
        else:
            self._answer_all(flush=False)

    def _answer_all(self, *, flush: bool) -> None:
        while task := self._intake.take(flush=flush):
            for event in self._engine.run(task):
                self._give(event)
        if flush:
            for event in self._engine.finish():
                self._give(event)

    def _work(self) -> None:
        """The engine's thread: what it fails with is raised where events are read."""
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - any, or readers would wait for ever
            self._events.failure = error
        finally:
            self._events.end()

    def _run(self) -> None:
        while True:
            with self._state:
                task = self._intake.take(flush=self._finishing)
                while task is None and not self._finishing and not self._closed:
                    self._state.wait()
                    task = self._intake.take(flush=self._finishing)
                if task is None or self._closed:
                    return
            for event in self._engine.run(task):
                self._give(event)
