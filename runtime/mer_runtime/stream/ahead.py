"""A stream engine whose eyes and ears run ahead of its answers, for recordings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mer_runtime.inputs.face import FaceDetector, open_again
from mer_runtime.spec import AudioSpec
from mer_runtime.stream.engine import StreamEngine
from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.intake import Task
from mer_runtime.stream.senses import Senses, SensesAhead
from mer_runtime.stream.view import WindowLogits, WindowView

#: Tasks that are looked at and listened to before they are answered: some three seconds of a clip.
AHEAD = 12
#: Windows whose new crops go through the encoder together, and groups of them that wait.
TOGETHER, GROUPS = 5, 2


class EngineAhead:
    """Answers tasks in their order, each some tasks after it came.

    Eyes and ears have threads of their own, and so has the network; between them stands what must
    go in order of time.
    """

    def __init__(self, engine: StreamEngine, senses: SensesAhead) -> None:
        self._engine, self._senses = engine, senses
        self._network = ThreadPoolExecutor(1, "mer-network")
        self._waiting: deque[Task] = deque()
        self._group: list[WindowView] = []
        self._computed: deque[tuple[list[WindowView], Future[list[WindowLogits]]]] = deque()

    def run(self, task: Task) -> list[StreamEvent]:
        """Take a task; the events of earlier ones."""
        self._senses.prepare(task)
        self._waiting.append(task)
        if len(self._waiting) > AHEAD:
            self._view()
        if len(self._group) >= TOGETHER:
            self._compute()
        return self._answer() if len(self._computed) > GROUPS else []

    def finish(self) -> Iterator[StreamEvent]:
        """The events of all tasks that wait."""
        while self._waiting:
            self._view()
        self._compute()
        while self._computed:
            yield from self._answer()

    def close(self) -> None:
        """End the threads."""
        self._network.shutdown(cancel_futures=True)
        self._senses.close()

    def _view(self) -> None:
        task = self._waiting.popleft()
        view = self._engine.view(task)
        if task.frames:
            self._senses.forget(task.frames[-1])
        if view is not None:
            self._group.append(view)

    def _compute(self) -> None:
        group, self._group = self._group, []
        self._computed.append((group, self._network.submit(self._engine.compute, group)))

    def _answer(self) -> list[StreamEvent]:
        group, computed = self._computed.popleft()
        pairs = zip(group, computed.result(), strict=True)
        return [event for view, logits in pairs for event in self._engine.answer(view, logits)]


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
