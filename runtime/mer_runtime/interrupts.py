"""Ctrl-C, SIGTERM and SIGHUP end a command with one line or none, wherever they meet it.

While modules are loaded, Ctrl-C would be a traceback, or a library's own error: one that is
interrupted while it is set up says that it is damaged. Nothing has been begun then that would have
to be ended, and after a command nothing is left to end: then the process ends at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

MESSAGE = "interrupted"
#: They ask a command to end. Python has no name for the second on Windows.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Seconds between two tries to give a signal again that came where nothing can be raised.
AGAIN = 0.01


def hold_interrupts() -> None:
    """Until ``release_interrupts``, let Ctrl-C end the process at once, with one line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody's own
        try:
            signal.signal(signal.SIGINT, _end)
        except ValueError:  # not the main thread: its handlers are another's
            return


def release_interrupts() -> None:
    """Let Ctrl-C raise ``KeyboardInterrupt`` again, if it was held."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def ended_by_signals() -> Iterator[list[BaseException]]:
    """Let SIGTERM and SIGHUP end a block as Ctrl-C does, tidily; a second one ends it at once.

    What ignores them, as under nohup, goes on ignoring them. Gives a list of what the signals that
    came raised: a library that was interrupted may raise something else in its place.
    """
    raised: list[BaseException] = []
    if threading.current_thread() is not threading.main_thread():
        yield raised
        return
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGINT)}
    tell_unraised = sys.unraisablehook
    heard, giving = threading.Event(), threading.RLock()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(number: int, frame: FrameType | None) -> None:
        if _is_within(frame, give_again.__code__):  # it would be dropped there as well
            return
        with giving:
            heard.set()
        restore()
        # Its code is what a shell says of a process that a signal ended.
        interrupted = number == signal.SIGINT
        raised.append(KeyboardInterrupt() if interrupted else SystemExit(128 + number))
        raise raised[-1]

    def take_over() -> None:
        for number in ENDING:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, end)
        if before[signal.SIGINT] is signal.default_int_handler:
            signal.signal(signal.SIGINT, end)

    def give_again(unraised: Any) -> None:
        # Python drops what is raised while it deletes something, and prints a traceback of it.
        if unraised.exc_value not in raised:
            tell_unraised(unraised)
            return
        heard.clear()
        take_over()
        code = getattr(unraised.exc_value, "code", 128 + signal.SIGINT)
        threading.Thread(target=repeat, args=(code - 128,), daemon=True).start()

    def repeat(number: int) -> None:
        while not heard.wait(AGAIN):
            with giving:
                if not heard.is_set():
                    _give(number)

    take_over()
    sys.unraisablehook = give_again
    try:
        yield raised
    finally:
        with giving:
            heard.set()
        sys.unraisablehook = tell_unraised
        restore()


def _is_within(frame: FrameType | None, code: CodeType) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _give(number: int) -> None:
    """Give this process's main thread a signal, from another thread."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _end(number: int, frame: FrameType | None) -> None:
    sys.stderr.write(f"Error: {MESSAGE}\n")
    sys.stderr.flush()
    os._exit(1)
