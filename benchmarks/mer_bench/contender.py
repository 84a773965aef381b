"""A contender as the bench sees it: a worker process that is told what to do, by turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from mer_runtime.errors import MerError

Kind = Literal["bundle", "reference"]
#: What serves each kind, as ``python -m`` takes it. The runtime imports none of the packages above
#: it; the reference, which needs the extra ``train``, has a process of its own.
WORKERS: Mapping[Kind, str] = {
    "bundle": "mer_bench.worker",
    "reference": "mer_bench.torch_worker",
}
#: How libraries are told, before they are imported, how many threads to take.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Seconds that a worker gets to end by itself.
PATIENCE = 10.0


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
    """

    clip: Path
    threads: int
    cores: tuple[int, ...]
    detector: Path | None


class Contender:
    """A worker process; ended by ``close`` or at the end of a ``with`` statement.

    Attributes:
        start: milliseconds from the process's start to its answer on the clip.
        load: of these, what loading the model took once Python and its packages were there.

    Raises:
        BenchError: the worker can't load its model or answer the clip.
    """

    def __init__(
        self, entry: Entry, setting: Setting, *, copies: int = 1, cache: Path | None = None
    ) -> None:
        self.name = entry.name
        threads = 1 if copies > 1 else setting.threads
        command = [sys.executable, "-m", WORKERS[entry.kind], entry.model, str(setting.clip)]
        command += ["--threads", str(threads), "--copies", str(copies)]
        if setting.cores:
            command += ["--cores", ",".join(map(str, setting.cores))]
        if setting.detector:
            command += ["--detector", str(setting.detector)]
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
        if cache is not None:
            variables["MER_CACHE"] = str(cache)
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        assert self._process.stdin
        assert self._process.stdout
        self._orders: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.start = 1e3 * (time.perf_counter() - began)
        self.load = float(ready["load"])
        self.label = str(ready["label"])
        self.engine = str(ready["engine"])

    def time_queries(self, count: int) -> list[dict[str, float]]:
        """Answer the clip so often, after once for warmth; milliseconds by measure."""
        found: list[dict[str, float]] = self._ask("single", count)
        return found

    def time_batch(self, count: int) -> tuple[int, float]:
        """Answer the clip so often with each copy at once: (clips, seconds)."""
        found = self._ask("offline", count)
        return int(found["clips"]), float(found["seconds"])

    def read_memory(self) -> float | None:
        """Megabytes held at most, so far."""
        found: float | None = self._ask("memory")
        return found

    def profile(self, windows: int) -> list[dict[str, Any]] | None:
        """Time by layer; None where the engine doesn't tell."""
        found: list[dict[str, Any]] | None = self._ask("profile", windows)
        return found

    def close(self) -> None:
        """End the worker."""
        self._orders.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, task: str, count: int = 1) -> Any:
        try:
            self._orders.write(json.dumps({"task": task, "count": count}) + "\n")
            self._orders.flush()
        except BrokenPipeError:
            pass  # it ended: reading tells
        return self._read()

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


def choose_cores(threads: int) -> tuple[int, ...]:
    """The last cores that this process may use: the first serve the system's interrupts.

    Raises:
        BenchError: there are fewer than ``threads``.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise BenchError(
            f"--threads {threads} is more than the {len(cores)} cores that this process may use"
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
