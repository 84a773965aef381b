"""Events that wait to be read, and what ended them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition

from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.statistics import StreamStatistics

#: Events that wait to be read in a live stream; the oldest goes first.
UNREAD = 1024


class EventQueue:
    """A stream's events, in their order; each is read once.

    Args:
        state: the stream's lock; it is notified of what is added.
        live: readers wait for the next event until the end, and what nobody reads is dropped.

    Attributes:
        failure: what stopped the engine; raised where events are read.
    """

    def __init__(self, state: Condition, statistics: StreamStatistics, *, live: bool) -> None:
        self.failure: Exception | None = None
        self._state = state
        self._statistics = statistics
        self._live = live
        self._events: deque[StreamEvent] = deque()
        self._ended = False

    def add(self, event: StreamEvent) -> None:
        """Let an event be read."""
        with self._state:
            if self._live and len(self._events) >= UNREAD:
                self._events.popleft()
                self._statistics.unread += 1
            self._events.append(event)
            self._state.notify_all()

    def end(self) -> None:
        """No event will come any more."""
        with self._state:
            self._ended = True
            self._state.notify_all()

    def read(self) -> Iterator[StreamEvent]:
        """What ``StreamRecognizer.events`` gives."""
        while True:
            with self._state:
                while self._live and not self._events and not self._ended:
                    self._state.wait()
                if not self._events:
                    self.raise_failure()
                    return
                event = self._events.popleft()
            yield event

    def raise_failure(self) -> None:
        """Raise what stopped the engine, if anything did."""
        if self.failure is not None:
            raise self.failure
