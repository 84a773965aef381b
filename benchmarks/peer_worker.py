"""A peer, or our runtime, in a process and an environment of its own (see ``mer_bench.worker``).

Of ``mer_bench`` it takes that one module, which needs nothing that a peer's environment lacks.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from mer_bench.worker import Loaded, serve, time_second

#: The modules of those whose environments aren't ours.
MODULES = {"mtcnn": "peer_mtcnn", "fer": "peer_fer"}


def main() -> None:
    """Serve ``describe``, ``time`` and ``once`` of a task, and ``answer`` of a clip."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    for option in ("--voice", "--bundle", "--detector"):
        parser.add_argument(option, type=Path)
    options = parser.parse_args()

    def load() -> Loaded:
        module = importlib.import_module(MODULES.get(options.name, "peer_ours"))
        subject: Any = module.Subject(options, options.threads)

        def once(task: str) -> None:
            subject.tasks[task]()

        return {}, {
            "describe": subject.describe,
            "time": lambda task: time_second(subject.tasks[task]),
            "once": once,
            "answer": lambda clip: subject.answer(Path(clip)),
        }

    serve(load)


if __name__ == "__main__":
    main()
