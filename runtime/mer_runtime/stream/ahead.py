"""A stream engine whose eyes and ears run ahead of its answers, for recordings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from mer_runtime.inputs.face import FaceDetector, open_again
from mer_runtime.spec import AudioSpec
from mer_runtime.stream.engine import StreamEngine
from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.intake import Task
from mer_runtime.stream.senses import Senses, SensesAhead

#: Tasks that are looked at and listened to before they are answered: some three seconds of a clip.
AHEAD = 12


class EngineAhead:
    """Answers tasks in their order, each some tasks after it came."""

    def __init__(self, engine: StreamEngine, senses: SensesAhead) -> None:
        self._engine, self._senses = engine, senses
        self._waiting: deque[Task] = deque()

    def run(self, task: Task) -> list[StreamEvent]:
        """Take a task; the events of an earlier one."""
        self._senses.prepare(task)
        self._waiting.append(task)
        return self._answer() if len(self._waiting) > AHEAD else []

    def finish(self) -> Iterator[StreamEvent]:
        """The events of all tasks that wait."""
        while self._waiting:
            yield from self._answer()

    def close(self) -> None:
        """End the threads."""
        self._senses.close()

    def _answer(self) -> list[StreamEvent]:
        task = self._waiting.popleft()
        events = self._engine.run(task)
        if task.frames:
            self._senses.forget(task.frames[-1])
        return events


def open_engine(
    make: Callable[..., StreamEngine],
    spec: AudioSpec,
    detector: FaceDetector | None,
    threads: int,
) -> StreamEngine | EngineAhead:
    """The engine that serves best: with one thread, or a detector that is one of a kind, a plain
    one.

    Args:
        make: makes the engine from ``senses``.
        detector: None where no frame will come.
    """

    def open_another() -> FaceDetector:
        another = None if detector is None else open_again(detector)
        assert another is not None
        return another

    if threads < 2 or (detector is not None and open_again(detector) is None):
        return make(senses=Senses(spec, detector))
    senses = SensesAhead(spec, open_another, threads)
    return EngineAhead(make(senses=senses), senses)
