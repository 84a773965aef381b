"""A contender in a process of its own: a line of JSON with an order in, one with the answer out.

    python -m mer_bench.worker MODEL CLIP --cores 0,1 --threads 2

The first line out says that the model is loaded and has answered the clip. Orders are
``{"task": "single", "count": n}``, ``{"task": "offline", "count": n}``, ``{"task": "memory"}`` and
``{"task": "profile", "count": n}``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

# Before any engine is imported: some count cores then. So the rest is imported where it's needed.
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is started with.

    Attributes:
        copies: of the model, for offline mode; each has ``threads`` threads.
    """

    model: str
    clip: Path
    cores: tuple[int, ...]
    threads: int
    copies: int
    detector: Path | None


def read_options(arguments: Sequence[str] | None = None) -> WorkerOptions:
    """Of the command line; also binds the process to the cores."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--cores", default="", help="numbers, with commas between them")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--detector", type=Path)
    given = parser.parse_args(arguments)
    cores = tuple(int(core) for core in given.cores.split(",") if core)
    if cores:
        os.sched_setaffinity(0, cores)
    return WorkerOptions(
        given.model, given.clip, cores, given.threads, given.copies, given.detector
    )


def serve(options: WorkerOptions, load: Callable[[WorkerOptions], Any]) -> None:
    """Load the model, answer the clip once, then do as told until the orders end.

    Args:
        load: gives a ``bench.subject.Subject``; called once for each copy.
    """
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # engines print
    from mer_runtime.errors import MerError

    try:
        start = time.perf_counter()
        subjects = [load(options) for _ in range(options.copies)]
        loaded = 1e3 * (time.perf_counter() - start)
        label = subjects[0].predict(options.clip)
        ready = {"load": loaded, "label": label, "engine": subjects[0].engine}
        _give(answers, ready)
        for line in sys.stdin:
            order = json.loads(line)
            _give(answers, _obey(order["task"], int(order.get("count", 1)), options, subjects))
    except MerError as error:
        _give(answers, {"error": " ".join(str(error).split())})
        raise SystemExit(1) from None


def peak_memory() -> float | None:
    """Megabytes that this process held at most; None where the system doesn't tell."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return None


def _obey(task: str, count: int, options: WorkerOptions, subjects: Sequence[Any]) -> Any:
    from mer_bench.subject import open_detector, time_query

    if task == "single":
        detector = open_detector(options.detector)
        # Wakes threads and caches; said in the report, and the only query that doesn't count.
        time_query(subjects[0], detector, options.clip)
        return [time_query(subjects[0], detector, options.clip) for _ in range(count)]
    if task == "offline":
        with ThreadPoolExecutor(len(subjects)) as pool:
            start = time.perf_counter()
            list(pool.map(lambda s: [s.predict(options.clip) for _ in range(count)], subjects))
            return {"clips": count * len(subjects), "seconds": time.perf_counter() - start}
    if task == "memory":
        return peak_memory()
    if task == "profile":
        return subjects[0].profile(count)
    raise ValueError(f"there is no task {task}")


def _give(answers: TextIO, answer: object) -> None:
    answers.write(f"{json.dumps(answer)}\n")
    answers.flush()


def main() -> None:
    """Serve a bundle."""

    def load(options: WorkerOptions) -> Any:
        from mer_bench.subject import BundleSubject
        from mer_runtime.recognizer import Recognizer

        recognizer = Recognizer.load(options.model, options.threads, options.detector)
        return BundleSubject(recognizer, options.threads)

    serve(read_options(), load)


if __name__ == "__main__":
    main()
