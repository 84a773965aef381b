"""Contenders: a worker process for each, which is told what to do (see ``mer_bench.worker``)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from mer_runtime.closing import Closing
from mer_runtime.errors import MerError
from mer_runtime.processes import end_process, start_python
from mer_runtime.proof.choice import EngineChoice

Kind = Literal["bundle", "reference"]
#: How libraries are told, before they are imported, how many threads to take.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class BenchError(MerError, RuntimeError):
    """A contender can't be run, or a file of results can't be read."""


@dataclass(frozen=True)
class Entry:
    """Who takes part.

    Attributes:
        name: in tables; no two are the same.
        model: as the worker takes it: a bundle's folder, or a checkpoint.
    """

    name: str
    kind: Kind
    model: str


@dataclass(frozen=True)
class Setting:
    """What all contenders are run with.

    Attributes:
        cores: numbers of the processor's cores, one for each thread; empty where a process can't
            be bound to them.
        detector: YuNet's file, or ``haar``; None for the YuNet that ships.
        backend: the engine that bundles run in; None for each one's own.
    """

    clip: Path
    threads: int
    cores: tuple[int, ...]
    detector: Path | None
    backend: EngineChoice | None = None


class Contender(Closing):
    """A worker process; ended by ``close`` or at the end of a ``with`` statement.

    Args:
        command: starts a program that calls ``mer_bench.worker.serve``.
        function: starts it in a Python of ours (``mer_runtime.processes``); ``command`` then holds
            its arguments.
        threads: that libraries are told to take.
        cores: numbers of those that it is bound to from its start; empty for any.
        variables: of its environment, besides this process's own.

    Attributes:
        start: milliseconds from the process's start to its first line.
        facts: that line.

    Raises:
        BenchError: the worker can't load what it serves.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[object],
        *,
        function: str | None = None,
        threads: int,
        cores: Sequence[int] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        told = dict.fromkeys(THREAD_VARIABLES, str(threads))
        began = time.perf_counter()
        with bind_children(cores):
            told |= variables or {}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            try:
                if function:
                    self._process = start_python(
                        function, command, variables=told, text=True, **pipes
                    )
                else:
                    self._process = subprocess.Popen(
                        [*map(str, command)], env={**os.environ, **told}, text=True, **pipes
                    )
            except OSError as error:
                raise BenchError(f"{name}: no process can be started: {error.strerror}") from error
        assert self._process.stdin
        assert self._process.stdout
        self._orders: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        try:
            self.facts: dict[str, Any] = self._read()
        except BaseException:
            self.close()
            raise
        self.start = 1e3 * (time.perf_counter() - began)

    def ask(self, task: str, *arguments: object) -> Any:
        """Have a task done; gives what the worker gave.

        Raises:
            BenchError: the worker ended, or can't do it.
        """
        try:
            self._orders.write(json.dumps([task, *arguments]) + "\n")
            self._orders.flush()
        except BrokenPipeError:
            pass  # it ended: reading tells
        return self._read()

    def close(self) -> None:
        """End the worker."""
        self._orders.close()
        end_process(self._process)
        self._answers.close()

    def _read(self) -> Any:
        line = self._answers.readline()
        if not line:
            code = self._process.wait()
            raise BenchError(
                f"{self.name}: its process ended with code {code}"
                + (", perhaps for lack of memory" if code == -9 else "")
            )
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer


@contextmanager
def bind_children(cores: Sequence[int]) -> Iterator[None]:
    """Bind this thread to ``cores`` for the block; processes that it starts remain bound.

    Some libraries count cores when they are imported: a process that binds itself may be too late.
    """
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def choose_cores(threads: int) -> tuple[int, ...]:
    """The last cores that this process may use: the first serve the system's interrupts.

    Returns:
        One for each thread; none where a process can't be bound to cores.

    Raises:
        BenchError: there are fewer than ``threads``.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise BenchError(
            f"{threads} threads are more than the {len(cores)} cores that this process may use"
        )
    return tuple(cores[-threads:])


def name_entries(bundles: Sequence[tuple[Path, Path]], reference: str | None) -> list[Entry]:
    """The reference first, then the bundles, by the shortest ends of paths that tell them apart.

    Args:
        bundles: each as it was named, and its folder.

    Raises:
        BenchError: two would have the same name.
    """
    entries = [Entry("reference", "reference", reference)] if reference else []
    names = _shorten([given for given, _ in bundles])
    for name, (_, folder) in zip(names, bundles, strict=True):
        entries.append(Entry(name, "bundle", str(folder)))
    taken = [entry.name for entry in entries]
    if len(set(taken)) < len(taken):
        raise BenchError("a bundle is named twice, or called reference: name each once")
    return entries


def _shorten(paths: Sequence[Path]) -> list[str]:
    parts = [path.parts for path in paths]
    for count in range(1, 1 + max(map(len, parts), default=1)):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
