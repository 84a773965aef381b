"""Python processes of our own: one function starts them all.

They import nothing from the working folder, get no signal that a terminal sends to all of its
processes, and end with the process that started them however that ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LAUNCHER = Path(__file__).with_name("launcher.py")
#: Where our packages are found, should nothing else in the path tell.
HOME = str(Path(__file__).resolve().parents[1])

#: Seconds that a process has to end by itself.
PATIENCE = 10.0

#: A pipe whose writing end is closed when this process ends, and the process that made it.
_alive: tuple[int, int, int] | None = None


def start_python(
    function: str,
    arguments: Sequence[object] = (),
    *,
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start a process that calls ``function``, ``module:name``, with ``arguments`` in ``sys.argv``.

    Args:
        variables: of its environment, besides this process's own.
        options: ``subprocess.Popen``'s.

    Raises:
        OSError: there are too many processes or open files.
    """
    environment = {**os.environ, **(variables or {}), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(LAUNCHER), os.pathsep.join(list_import_path())]
    if sys.platform == "win32":
        options |= {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        command.append("-")
    else:
        pipe = _watch_this_process()
        options |= {"pass_fds": (pipe,), "start_new_session": True}
        command.append(str(pipe))
    command += [function, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **options)


def end_process(process: subprocess.Popen[Any]) -> None:
    """Wait for a process to end by itself, and kill one that takes longer than ``PATIENCE``."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def list_import_path() -> list[str]:
    """Where a child may import from: as this process, without the working folder.

    Python itself puts that first for ``-m`` and ``-c``. Named in ``PYTHONPATH`` it is the user's
    choice, and stays.
    """
    path = list(sys.path)
    if _has_working_folder():
        found = next((i for i, entry in enumerate(path) if _is_working_folder(entry)), None)
        if found is not None:
            del path[found]
    return [*filter(None, path), HOME]


def _has_working_folder() -> bool:
    """Whether Python put it there, as it does where no script was named."""
    main = sys.modules["__main__"]
    named = getattr(main, "__file__", None) and getattr(main, "__spec__", None) is None
    # Python 3.10 has no safe_path.
    return not (named or sys.flags.isolated or getattr(sys.flags, "safe_path", False))


def _is_working_folder(folder: str) -> bool:
    try:
        return not folder or Path(folder).samefile(os.curdir)
    except OSError:  # either was removed
        return False


def _watch_this_process() -> int:
    """The reading end of a pipe that ends with this process; one serves all children."""
    global _alive
    if _alive is None or _alive[0] != os.getpid():  # a fork's children are its own
        if _alive is not None:
            os.close(_alive[2])
        reading, writing = os.pipe()  # not inherited: only the starter holds the writing end
        _alive = os.getpid(), reading, writing
    return _alive[1]
