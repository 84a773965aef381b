"""Pipes read so that a reader can be stopped: standard input and named pipes."""

from __future__ import annotations

import os
import select
from threading import Event

from mer_runtime.closing import Closing
from mer_runtime.live.sources.address import Address
from mer_runtime.live.sources.captured import SourceError

#: Seconds between two looks at whether to stop.
TICK = 0.1


class PipeReader(Closing):
    """A file-like object for ``av.open``. ``read`` answers nothing, as at the end, once stopped.

    A named pipe is opened at once; its end comes when the last of its writers is gone, and
    before the first has come ``read`` waits.

    Raises:
        SourceError: the pipe can't be opened.
    """

    def __init__(self, address: Address, stop: Event) -> None:
        self._stop = stop
        self._own = address.kind == "fifo"
        try:
            self._fd = os.open(address.location, os.O_RDONLY | os.O_NONBLOCK) if self._own else 0
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
        except OSError as error:
            raise SourceError(address.name, f"can't be read: {error.strerror}") from error

    def read(self, size: int) -> bytes:
        """What has come, at most ``size`` bytes; empty at the end."""
        while not self._stop.is_set():
            # Without a writer yet a named pipe has no event; when the last one left, POLLHUP.
            if not self._poll.poll(1000 * TICK):
                continue
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                continue
        return b""

    def close(self) -> None:
        if self._own and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
