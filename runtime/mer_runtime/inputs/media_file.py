"""A clip's file: on this machine, or in memory. It can be opened more than once."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mer_runtime.errors import MediaError, SpecError
from mer_runtime.files import describe_fault
from mer_runtime.inputs.container import open_file, open_pipe

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CREDENTIALS = re.compile(r"//[^/@]*@")


@runtime_checkable
class ReadableFile(Protocol):
    """A file object, opened in binary mode."""

    def read(self, size: int = ..., /) -> bytes: ...


#: What names or is a clip's file.
Media = str | Path | bytes | bytearray | memoryview | ReadableFile
#: The same for ``isinstance``.
MEDIA = (str, os.PathLike, bytes, bytearray, memoryview, ReadableFile)


class MediaFile:
    """A path, a file's content, or a file object.

    A file object is read from its beginning, wherever it stands, and isn't closed. One that
    can't go back, such as a pipe, is read into memory.

    Attributes:
        name: for people: the path, or such as "<bytes>".

    Raises:
        MediaError: there is no such file, it is empty, or it is a URL.
        SpecError: a file object gives text.
    """

    def __init__(self, media: Media) -> None:
        self._path: Path | None = None
        self._content: Any = None
        if isinstance(media, bytes | bytearray | memoryview):
            self.name, self._content = "<bytes>", BytesIO(media)
        elif isinstance(media, ReadableFile):
            name = getattr(media, "name", None)
            self.name = name if isinstance(name, str) else "<file object>"
            self._content = _make_seekable(media)
        else:
            _refuse_url(media)
            self.name, self._path = str(media), Path(media)
            check_file(self._path)
        if self._content is not None and not self._content.seek(0, os.SEEK_END):
            raise MediaError(self.name, "the file is empty")

    def open(self) -> Any:
        """FFmpeg's container.

        Raises:
            av.FFmpegError, OSError, ValueError: it can't be opened.
        """
        if self._path is not None:
            return open_file(self._path)
        self._content.seek(0)
        return open_pipe(self._content, {})

    def read(self, size: int = -1) -> bytes:
        """Its first bytes, or all."""
        if self._path is not None:
            with self._path.open("rb") as file:
                return file.read(size)
        self._content.seek(0)
        return bytes(self._content.read(size))


def check_file(path: Path) -> None:
    """Refuse what can't be a clip.

    Raises:
        MediaError: it isn't a file, can't be read, or holds nothing.
    """
    fault = describe_fault(path, "clip")
    if fault is not None:
        raise MediaError(path, fault)


def _make_seekable(file: Any) -> Any:
    if not isinstance(file.read(0), bytes):
        raise SpecError("a file object must give bytes: open it with mode 'rb'")
    seekable = getattr(file, "seekable", None)
    return file if seekable is not None and seekable() else BytesIO(file.read())


def _refuse_url(media: str | Path) -> None:
    if isinstance(media, str) and _SCHEME.match(media) and not os.path.exists(media):  # noqa: PTH110
        raise MediaError(
            _CREDENTIALS.sub("//", media),
            "is a URL, and nothing is fetched: save the file, or take it for a stream "
            "(mer-run BUNDLE URL, or LiveSession)",
        )
