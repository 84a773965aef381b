"""Work shared out to several processes, each of which loads once what the work needs.

A process that dies, for lack of memory say, is replaced and its item tried once more; an item that
two processes die of has an error of its own, and so has one that raises anything.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from mer_runtime.console import log_settings, show_logs
from mer_runtime.errors import MediaError, MerError, MerWarning, lacks_memory
from mer_runtime.prediction import Analysis
from mer_runtime.processes import end_process, start_python
from mer_runtime.recognizer import Recognizer

logger = logging.getLogger(__name__)

#: Processes that may die of one item.
TRIES = 2


class Outcome(NamedTuple):
    """What became of an item: ``value``, or ``error``."""

    item: Any
    value: Any
    error: MerError | None


class Task:
    """What a process does with each item: ``work(load(), item)``, loaded with the first one.

    Args:
        logs: ``show_logs``' arguments there.
        load, work: see ``work_in_parallel``.
    """

    def __init__(
        self, logs: tuple[str, str], load: Callable[[], Any], work: Callable[[Any, Any], Any]
    ) -> None:
        self._logs, self._load, self._work = logs, load, work
        self._loaded: Any = None
        self._ready = False

    def run(self, item: Any) -> tuple[str, Any, list[str]]:
        """Do it; for ``tell_again`` in the process that asked.

        Returns:
            ``value``, ``error`` (the item's) or ``unable`` (that of loading); the value or error;
            and the text of warnings.
        """
        with warnings.catch_warnings(record=True) as caught, show_logs(*self._logs):
            warnings.simplefilter("always", MerWarning)
            kind = "unable"
            try:
                if not self._ready:
                    self._loaded, self._ready = self._load(), True
                kind = "error"
                value = self._work(self._loaded, item)
                pickle.dumps(value)
                kind = "value"
            except Exception as error:  # the item's own, whatever it is
                logger.debug("%s", item, exc_info=error)
                text = f"{type(error).__name__}: {error}"
                value = error if isinstance(error, MerError) else MerError(text)
        told = [str(w.message) for w in caught if issubclass(w.category, MerWarning)]
        return kind, value, told


def tell_again(item: Any, kind: str, value: Any, told: Sequence[str]) -> Outcome:
    """The outcome of what ``Task.run`` gave elsewhere, its warnings given here.

    Raises:
        MerError: the task couldn't be loaded.
    """
    for text in told:
        warnings.warn(text, MerWarning, stacklevel=2)
    if kind == "unable":
        raise value
    return Outcome(item, None, value) if kind == "error" else Outcome(item, value, None)


@dataclass
class _Job:
    """A process and the place of the item that it works on."""

    process: subprocess.Popen[Any]
    pipe: Connection
    place: int | None = None


def answer_in_parallel(
    clips: Sequence[Path],
    jobs: int,
    load: Callable[[], Recognizer],
    work: Callable[[Recognizer, Analysis], Any],
) -> Iterator[Outcome]:
    """Answer clips with ``jobs`` processes; outcomes come in the order of the clips.

    Args:
        load, work: see ``work_in_parallel``; ``work`` gets a clip's analysis.

    Raises:
        MerError: what ``load`` raises.
    """
    yield from in_order(_share_out(clips, jobs, load, partial(_answer, work)))


def work_in_parallel(
    items: Sequence[Any],
    jobs: int,
    load: Callable[[], Any],
    work: Callable[[Any, Any], Any],
) -> Iterator[Outcome]:
    """Call ``work(loaded, item)`` for each item in ``jobs`` processes; outcomes come as they are.

    Args:
        load: called once in each process. It and ``work`` are pickled, so they are functions of a
            module, or ``functools.partial`` of one.
        work: gives something small to pickle.

    Raises:
        MerError: what ``load`` raises, or there can't be even one process.
    """
    for _, outcome in _share_out(items, jobs, load, work):
        yield outcome


def in_order(found: Iterable[tuple[int, Outcome]]) -> Iterator[Outcome]:
    """Outcomes by their place, each as soon as all before it are there."""
    done: dict[int, Outcome] = {}
    given = 0
    for place, outcome in found:
        done[place] = outcome
        while given in done:
            yield done.pop(given)
            given += 1


def tell_unexpected(clip: Path, error: Exception) -> MediaError:
    """The error of a clip that raised what no clip should."""
    logger.debug("%s", clip, exc_info=error)
    if lacks_memory(error):
        return MediaError(clip, "there isn't enough memory for it")
    if isinstance(error, OSError) and error.strerror:
        return MediaError(clip, error.strerror)
    return MediaError(clip, f"{type(error).__name__}: {error}")


def _share_out(
    items: Sequence[Any], jobs: int, load: Callable[[], Any], work: Callable[[Any, Any], Any]
) -> Iterator[tuple[int, Outcome]]:
    task = pickle.dumps((log_settings(), load, work))
    waiting = list(range(len(items)))[::-1]
    deaths = dict.fromkeys(waiting, 0)
    running: list[_Job] = []
    try:
        while True:
            for job in running:
                if job.place is None:
                    _hand_out(job, waiting, items)
            while waiting and len(running) < jobs:
                try:
                    running.append(_start(task))
                except OSError as error:
                    if not running:
                        reason = error.strerror or str(error)
                        raise MerError(f"no process can be started: {reason}") from error
                    break  # those that there are do it
                _hand_out(running[-1], waiting, items)
            busy = [job for job in running if job.place is not None]
            if not busy:
                return
            for pipe in wait([job.pipe for job in busy]):
                job = next(job for job in busy if job.pipe is pipe)
                assert job.place is not None
                place, job.place = job.place, None
                try:
                    done = pickle.loads(job.pipe.recv_bytes())
                except (EOFError, OSError):
                    running.remove(job)
                    _end(job)
                    deaths[place] += 1
                    if deaths[place] < TRIES:
                        waiting.append(place)
                    else:
                        death = _death_error(items[place], job.process.returncode)
                        yield place, Outcome(items[place], None, death)
                    continue
                yield place, tell_again(items[place], *done)
    finally:
        for job in running:
            _end(job)


def _death_error(item: Any, code: int) -> MerError:
    reason = f"the process that worked on it died (code {code}), twice: give fewer --jobs"
    return MediaError(item, reason) if isinstance(item, Path) else MerError(reason)


def _start(task: bytes) -> _Job:
    ours, theirs = Pipe()
    with theirs:  # closed here, so that its death is seen
        try:
            process = start_python("mer_runtime.jobs:serve", stdin=theirs.fileno())
        except OSError:
            ours.close()
            raise
    with suppress(OSError):  # it died: reading from it tells
        ours.send_bytes(task)
    return _Job(process, ours)


def _hand_out(job: _Job, waiting: list[int], items: Sequence[Any]) -> None:
    if waiting:
        job.place = waiting.pop()
        with suppress(OSError):
            job.pipe.send(items[job.place])


def _end(job: _Job) -> None:
    job.pipe.close()  # idle, it ends by itself
    if job.place is not None:
        job.process.terminate()
    end_process(job.process)


def _answer(work: Callable[[Recognizer, Analysis], Any], recognizer: Recognizer, clip: Path) -> Any:
    try:
        return work(recognizer, recognizer.analyse(clip))
    except MerError:
        raise
    except Exception as error:
        raise tell_unexpected(clip, error) from error


def serve() -> None:
    """In the process: work on what comes until the other end is closed."""
    with Connection(os.dup(0)) as pipe:
        with open(os.devnull) as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
        with suppress(OSError):  # answers are the starter's to print; engines print, too
            os.dup2(2, 1)
        with suppress(EOFError, OSError):
            _serve(pipe)


def _serve(pipe: Connection) -> None:
    content = pipe.recv_bytes()
    task: Task | None = None
    while True:
        item = pipe.recv()
        if task is None:
            try:
                task = Task(*pickle.loads(content))
            except Exception as error:  # noqa: BLE001 - such as a function that isn't found here
                task = Task(log_settings(), partial(_fail, error), _fail)
        pipe.send_bytes(pickle.dumps(task.run(item)))


def _fail(error: Exception, *_: Any) -> None:
    raise error
