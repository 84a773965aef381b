"""systemd's protocol for services: ready, status, and the watchdog's signs of life.

It is one datagram to the socket that ``NOTIFY_SOCKET`` names. Started by hand there is none, and
nothing happens.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from time import monotonic

#: Signs of life in the time after which systemd takes the process for hung.
BEATS = 3


def notify(*assignments: str) -> bool:
    """Tell the service manager something, ``READY=1`` or ``STATUS=...`` say.

    Returns:
        Whether there was one to tell.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # abstract: a name that is no file
        address = f"\0{address[1:]}"
    told = "\n".join(" ".join(one.splitlines()) for one in assignments)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(told.encode("utf-8", "backslashreplace"), address)
        return True
    return False


class Watchdog:
    """Sends signs of life, where the service manager waits for them (``WatchdogSec=``)."""

    def __init__(self) -> None:
        asked = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        self._interval = int(asked) / 1e6 / BEATS if asked.isdecimal() and ours else None
        self._next = 0.0

    def beat(self) -> None:
        """Called often; tells the service manager as often as it wants to hear."""
        now = monotonic()
        if self._interval is not None and now >= self._next:
            self._next = now + self._interval
            notify("WATCHDOG=1")
