"""A peer, or our runtime, in a process and an environment of its own.

By default a line with a task in, a line with its time out, as ``worker.py`` does; ``--once`` does
one task and tells how much memory the process took; ``--answer`` names the emotions of many clips.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from worker import serve

#: The modules of those whose environments aren't ours.
MODULES = {"mtcnn": "peer_mtcnn", "fer": "peer_fer"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--cores", required=True, help="numbers, with commas between them")
    for option in ("--voice", "--bundle", "--detector"):
        parser.add_argument(option, type=Path)
    parser.add_argument("--once", metavar="TASK")
    parser.add_argument("--answer", type=Path, metavar="FILE", help="clips, one a line")
    options = parser.parse_args()
    cores = [int(core) for core in options.cores.split(",")]
    # Before any engine is imported: some count cores then.
    os.sched_setaffinity(0, cores)
    warnings.simplefilter("ignore")
    answers = sys.stdout
    sys.stdout = sys.stderr  # engines print
    module = importlib.import_module(MODULES.get(options.name, "peer_ours"))
    subject: Any = module.Subject(options, len(cores))
    if options.once:
        subject.tasks[options.once]()
        json.dump({"memory_mb": read_peak_memory()}, answers)
    elif options.answer:
        clips = [Path(line) for line in options.answer.read_text().splitlines()]
        json.dump([subject.answer(clip) for clip in clips], answers)
    else:
        serve(subject.tasks, {"logits": None, **subject.describe()}, answers)


def read_peak_memory() -> float | None:
    """MB that this process held at most (Linux's VmHWM); None elsewhere."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


if __name__ == "__main__":
    main()
