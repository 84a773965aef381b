"""A worker: a process that loads something, then does what it is told, a line for each.

A line in is a JSON list, a task and its arguments; a line out is what the task gave. The first line
out are the facts of what was loaded. ``{"error": "..."}`` is the last one.

    python -m mer_bench.worker bundle MODEL CLIP --threads 2

serves a contender of ``mer-bench``. Peers' environments have none of our packages' needs and serve
with this module too: it imports the standard library, and all else where it is needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
#: Facts, and what does each task.
Loaded = tuple[Mapping[str, Any], Mapping[str, Callable[..., Any]]]


def serve(load: Callable[[], Loaded], told: tuple[type[Exception], ...] = ()) -> None:
    """Load, give the facts, then do tasks until the lines end; ``memory`` is always one.

    Args:
        load: gives facts and tasks; facts, arguments and what tasks give are JSON-ready.
        told: errors that end the process with one line, not with a traceback.
    """
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # engines print

    def give(answer: object) -> None:
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()

    try:
        facts, tasks = load()
        give(facts)
        for line in sys.stdin:
            task, *arguments = json.loads(line)
            give(peak_memory() if task == "memory" else tasks[task](*arguments))
    except told as error:
        give({"error": " ".join(str(error).split())})
        raise SystemExit(1) from None


def time_second(run: Callable[[], object]) -> float:
    """Milliseconds of the second of two calls: the first wakes threads and caches."""
    run()
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def peak_memory() -> float | None:
    """Megabytes that this process held at most (Linux's VmHWM); None elsewhere."""
    for line in STATUS.read_text().splitlines() if STATUS.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def load_contender(options: argparse.Namespace) -> Loaded:
    """The copies of a model, after one answer to the clip.

    Raises:
        MerError: the model can't be loaded or the clip can't be answered.
    """
    from mer_bench.subject import open_detector, open_subject, time_query

    start = time.perf_counter()
    subjects = [
        open_subject(
            options.kind, options.model, options.threads, options.detector, options.backend
        )
        for _ in range(options.copies)
    ]
    load = 1e3 * (time.perf_counter() - start)
    first, clip = subjects[0], options.clip

    def single(count: int) -> list[dict[str, float]]:
        detector = open_detector(options.detector)
        # Wakes threads and caches; said in the report, and the only query that doesn't count.
        time_query(first, detector, clip)
        return [time_query(first, detector, clip) for _ in range(count)]

    def offline(count: int) -> dict[str, float]:
        with ThreadPoolExecutor(len(subjects)) as pool:
            start = time.perf_counter()
            list(pool.map(lambda one: [one.predict(clip) for _ in range(count)], subjects))
            return {"clips": count * len(subjects), "seconds": time.perf_counter() - start}

    facts = {"load": load, "label": first.predict(clip), "engine": first.engine}
    return facts, {"single": single, "offline": offline, "profile": first.profile}


def main() -> None:
    """Serve a bundle or the reference."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("bundle", "reference"))
    parser.add_argument("model")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--threads", type=int, required=True, help="of each copy")
    parser.add_argument("--copies", type=int, default=1, help="of the model, for offline mode")
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--backend", help="a bundle's engine, if not its own")
    options = parser.parse_args()
    from mer_runtime.errors import MerError

    serve(lambda: load_contender(options), (MerError,))


if __name__ == "__main__":
    main()
