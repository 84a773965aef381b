"""What one thread at a time may use, and no process but the one that made it."""

from __future__ import annotations

import ctypes
import os
from threading import Lock
from typing import Any
from weakref import WeakSet

from mer_runtime.errors import MerError


class Turn:
    """A lock around something whose threads a fork doesn't copy, as an engine's.

    Raises:
        MerError: on entering, in a process that was forked from the one that made it. There the
            engine would wait for threads that don't exist.
    """

    def __init__(self, owned: object) -> None:
        self.owned = owned
        self._process = os.getpid()
        self._lock = Lock()
        _turns.add(self)

    def __enter__(self) -> None:
        if os.getpid() != self._process:  # the lock, too, may be held for ever
            raise MerError(
                "this process was forked from the one that loaded the bundle, and engines don't "
                "survive that: call Recognizer.load in it, or start it by spawn"
            )
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


_turns: WeakSet[Turn] = WeakSet()


def _keep_for_ever() -> None:
    """In a forked process: an engine that is destroyed waits for its threads, as well."""
    increase: Any = ctypes.pythonapi.Py_IncRef
    for turn in list(_turns):
        increase(ctypes.py_object(turn))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_ever)
