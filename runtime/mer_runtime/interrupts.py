"""Ctrl-C while a command's modules are being loaded: one line, as later on.

It would be a traceback, or a library's own error: one that is interrupted while it is set up says
that it is damaged. Nothing has been begun then that would have to be ended.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

MESSAGE = "interrupted"


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


def _end(number: int, frame: FrameType | None) -> None:
    sys.stderr.write(f"Error: {MESSAGE}\n")
    sys.stderr.flush()
    os._exit(1)
