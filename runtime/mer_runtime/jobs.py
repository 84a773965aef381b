"""A folder's clips answered by several processes, each with the bundle loaded once.

A process that dies, for lack of memory say, is replaced and its clip tried once more; a clip that
two processes die of is an error of its own. Every clip is answered exactly once, in order.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from mer_runtime.errors import MediaError, MerError, MerWarning
from mer_runtime.recognizer import Analysis, Recognizer

#: Processes that may die of one clip.
TRIES = 2
#: Seconds that a process gets to end by itself.
PATIENCE = 10.0


class Outcome(NamedTuple):
    """What became of a clip: ``value``, or ``error``."""

    clip: Path
    value: Any
    error: MerError | None


@dataclass
class _Job:
    """A process and the place of the clip that it works on."""

    process: Any
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
        load: called once in each process. It and ``work`` are pickled, so they are functions of a
            module, or ``functools.partial`` of one.
        work: what is made of a clip's analysis, in the process; gives something small to pickle.

    Raises:
        MerError: what ``load`` raises.
    """
    context = multiprocessing.get_context("spawn")  # engines' threads don't survive a fork
    waiting = list(range(len(clips)))[::-1]
    deaths = dict.fromkeys(waiting, 0)
    done: dict[int, Outcome] = {}
    given = 0
    running: list[_Job] = []
    try:
        while given < len(clips):
            busy = [job for job in running if job.place is not None]
            while waiting and len(running) < min(jobs, len(busy) + len(waiting)):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, load, work), daemon=True)
                process.start()
                theirs.close()  # so that its death is seen here
                running.append(_Job(process, ours))
                _hand_out(running[-1], waiting, clips)
                busy.append(running[-1])
            for pipe in wait([job.pipe for job in running if job.place is not None]):
                job = next(job for job in running if job.pipe is pipe)
                assert job.place is not None
                place, job.place = job.place, None
                try:
                    kind, value, told = job.pipe.recv()
                except (EOFError, OSError):
                    running.remove(job)
                    _end(job)
                    deaths[place] += 1
                    if deaths[place] < TRIES:
                        waiting.append(place)
                    else:
                        reason = f"the process that answered it died (code {job.process.exitcode})"
                        error = MediaError(clips[place], f"{reason}, twice: give fewer --jobs")
                        done[place] = Outcome(clips[place], None, error)
                    continue
                for text in told:
                    warnings.warn(text, MerWarning, stacklevel=2)
                if kind == "unable":
                    raise value
                done[place] = (
                    Outcome(clips[place], None, value)
                    if kind == "error"
                    else Outcome(clips[place], value, None)
                )
                _hand_out(job, waiting, clips)
            while given in done:
                yield done.pop(given)
                given += 1
    finally:
        for job in running:
            _end(job)


def _hand_out(job: _Job, waiting: list[int], clips: Sequence[Path]) -> None:
    if waiting:
        job.place = waiting.pop()
        with suppress(OSError):  # it died: reading from it tells
            job.pipe.send(clips[job.place])


def _end(job: _Job) -> None:
    job.pipe.close()  # idle, it ends by itself
    if job.place is not None:
        job.process.terminate()
    job.process.join(PATIENCE)
    if job.process.is_alive():
        job.process.kill()
        job.process.join()


def _serve(
    pipe: Connection,
    load: Callable[[], Recognizer],
    work: Callable[[Recognizer, Analysis], Any],
) -> None:
    """In the process: answer what comes until the other end is closed."""
    recognizer: Recognizer | None = None
    try:
        while True:
            clip = pipe.recv()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", MerWarning)
                kind = "unable" if recognizer is None else "error"
                value: Any
                try:
                    recognizer = recognizer or load()
                    kind = "error"
                    value = work(recognizer, recognizer.analyse(clip))
                    kind = "value"
                except MerError as error:
                    value = MerError(str(error))  # its own class may not be unpickled
            told = [str(w.message) for w in caught if issubclass(w.category, MerWarning)]
            pipe.send((kind, value, told))
    except (EOFError, OSError, KeyboardInterrupt):
        return
