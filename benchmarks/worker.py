"""One contender in a process of its own: a line with a task in, a line with its time out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    for option in ("--folder", "--checkpoint", "--clip"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--cores", required=True, help="numbers, with commas between them")
    options = parser.parse_args()
    cores = [int(core) for core in options.cores.split(",")]
    # Before any engine is imported: some count cores then.
    os.sched_setaffinity(0, cores)
    warnings.simplefilter("ignore")
    from contenders import load_contender

    answers = sys.stdout
    sys.stdout = sys.stderr  # engines print
    tasks = load_contender(
        options.name, options.folder, options.checkpoint, options.clip, len(cores)
    )
    logits = tasks["window"]() if "window" in tasks else None
    serve(tasks, {"logits": None if logits is None else logits.tolist()}, answers)


def serve(
    tasks: Mapping[str, Callable[[], Any]], facts: Mapping[str, Any], answers: IO[str]
) -> None:
    """Say that one is ready, with the facts; then time each task that a line names."""

    def give(answer: object) -> None:
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()

    give({"tasks": list(tasks), **facts})
    for line in sys.stdin:
        run = tasks[line.strip()]
        run()  # wakes threads and caches; only the next one counts
        start = time.perf_counter()
        run()
        give(1e3 * (time.perf_counter() - start))


if __name__ == "__main__":
    main()
