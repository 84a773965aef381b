"""A recording's file: an MP4 in fragments, which can be played up to wherever it was cut."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import av

from mer_runtime.live.overlay import VIDEO_SUFFIX

#: Seconds of a fragment: what a power cut costs at most.
FRAGMENT = 1.0
OPTIONS = {
    # The header waits for the first fragment, and then says how far sound begins before the
    # picture.
    "movflags": "delay_moov+default_base_moof",
    "frag_duration": str(round(FRAGMENT * 1e6)),
    "flush_packets": "1",
}
#: Digits of a numbered recording: out-000001.mp4.
DIGITS = 6


class FragmentedFile:
    """An MP4 that is hidden until its first fragment is on the disk, and has its name from then on.

    So an earlier file of that name stays until there is something to put in its place, and what
    was recorded stays whatever becomes of the process.

    Attributes:
        container: PyAV's, to add streams to.

    Raises:
        OSError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(f".{path.stem}.{os.getpid()}.part{VIDEO_SUFFIX}")
        self._part.unlink(missing_ok=True)  # of a process that had this number
        self._file = self._part.open("xb")  # not through a link that waits there
        self._named = False
        self._whole = 0  # bytes of whole fragments
        try:
            self.container: Any = av.open(self._file, "w", format="mp4", options=OPTIONS)
        except BaseException:
            self.discard()
            raise

    @property
    def named(self) -> bool:
        """Whether something was recorded."""
        return self._named

    def mux(self, packets: Any) -> None:
        """Write packets.

        Raises:
            OSError, av.FFmpegError: they can't be written.
        """
        if not packets:
            return
        self.container.mux(packets)
        self._file.flush()
        self._whole = self._file.tell()
        if not self._named and self._whole:
            self._name()

    def close(self) -> None:
        """Finish it.

        Raises:
            OSError, av.FFmpegError: it can't be finished.
        """
        self.container.close()
        self._file.flush()
        self._file.close()
        if not self._named:
            self._name()

    def discard(self) -> None:
        """Close it after an error: whole fragments stay, and without one nothing is left of it."""
        if self._file.closed:
            return
        descriptor = os.dup(self._file.fileno())
        # Closing what is unfinished can fail, and write more.
        with suppress(AttributeError, OSError, ValueError, av.FFmpegError):
            self.container.close()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            os.ftruncate(descriptor, self._whole)
        os.close(descriptor)
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _name(self) -> None:
        self._part.replace(self.path)
        self._named = True


def number_recordings(path: Path) -> dict[int, Path]:
    """Numbered recordings beside ``path``, by number: of out.mp4, out-000001.mp4 and so on."""
    name = re.compile(rf"{re.escape(path.stem)}-(\d{{{DIGITS}}}){re.escape(path.suffix)}")
    found = ((name.fullmatch(file.name), file) for file in path.absolute().parent.iterdir())
    return {int(match[1]): file for match, file in found if match}


def next_recording(path: Path) -> Path:
    """The name after the highest number there."""
    number = max(number_recordings(path), default=0) + 1
    return path.with_name(f"{path.stem}-{number:0{DIGITS}}{path.suffix}")


def drop_oldest(path: Path, keep: int) -> None:
    """Remove numbered recordings but the last ``keep``."""
    found = sorted(number_recordings(path).items())
    for _, file in found[:-keep]:
        with suppress(OSError):
            file.unlink()
