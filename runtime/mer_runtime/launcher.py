"""The program that a process of ours starts with: see ``mer_runtime.processes``.

    python launcher.py PATH ALIVE MODULE:FUNCTION [ARGUMENT...]

Run as a file, not as a module: ``-m`` and ``-c`` put the working folder before everything else, and
a clip's neighbour may be called numpy.py. Until PATH is set, nothing is imported that Python
hasn't loaded by itself.
"""

import os
import sys


def main() -> None:
    """Take the starter's import path, end when it ends, call FUNCTION."""
    _, path, alive, target, *arguments = sys.argv
    sys.path[:] = path.split(os.pathsep)
    if alive.isdigit():
        _end_with(int(alive))
    module, _, function = target.partition(":")
    sys.argv = [module, *arguments]
    from importlib import import_module

    getattr(import_module(module), function)()


def _end_with(pipe: int) -> None:
    """End this process when the other end of ``pipe`` is closed, which only a death does."""
    from threading import Thread

    def wait() -> None:
        os.read(pipe, 1)
        os._exit(1)

    Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    main()
