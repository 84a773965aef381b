"""Files: written whole or not at all, locked, hashed, packed."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import secrets
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

from mer_runtime.errors import OutputError

if sys.platform != "win32":
    import fcntl

#: Ends the name of a packed file.
PACKED_SUFFIX = ".gz"
#: Bytes of an unpacked graph: no encoder for a device has more.
MOST_UNPACKED = 1 << 29
#: Bytes of a name's beginning that a file in the making keeps.
LONGEST_STEM = 160
#: Windows has no such links.
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
#: Seconds between two looks at a lock.
LOCK_INTERVAL = 0.1


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell any ``OSError`` of the block as one of an output.

    Raises:
        OutputError: that ``path`` can't be written; the block's own ``OutputError`` stays as it is.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(path, error.strerror or str(error)) from error


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, and those above it; one that is there already stays.

    Raises:
        OutputError: it can't be made, or a file has its name.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Name of a file to be written, which takes the place of ``path`` when the block ends well.

    It lies in the same folder, has the same suffix, and is hidden; after an error it is removed.
    It is there already, empty, under a name that nobody can guess: no link of somebody else's
    leads a writer elsewhere.

    Args:
        mode: who may read and write it, as far as the umask lets them.

    Raises:
        OutputError: it can't be written. Any ``OSError`` of the block counts as that.
    """
    part: Path | None = None
    try:
        with writing(path):
            try:
                part = _create_part(path, mode)
            except ValueError as error:  # such as a name with a null in it
                raise OutputError(path, f"no file can be called that ({error})") from error
            yield part
            part.replace(path)
    finally:
        if part is not None:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _create_part(path: Path, mode: int) -> Path:
    """A new, empty file beside ``path``."""
    # A long name leaves room for what is put around it.
    stem = os.fsdecode(os.fsencode(path.stem)[:LONGEST_STEM])
    part = path.with_name(f".{stem}.{secrets.token_hex(8)}.part{path.suffix}")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, mode))
    return part


def write_file(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write a file whole or not at all; text is UTF-8, ``mode`` as for ``replacing``.

    Raises:
        OutputError: it can't be written.
    """
    with replacing(path, mode) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def locked(path: Path, wait: Callable[[float], None] | None = None) -> Iterator[None]:
    """Hold a lock file. A process that dies lets go of it, and the last one removes it.

    Where the system or the file's owner allows no lock, the block runs without one.

    Args:
        wait: called again and again, with the seconds so far, while another process holds it.

    Raises:
        BlockingIOError: another process holds it, and there is no ``wait``.
    """
    descriptor = _lock(path, wait)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(path: Path, wait: Callable[[float], None] | None) -> int | None:
    """A locked descriptor; None where there are no such locks."""
    if sys.platform == "win32":
        return None
    start = time.monotonic()
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | NO_LINK, 0o666)
        except OSError:  # somebody else's, left behind
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed it in between: then this is nobody's lock.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            if wait is None:
                raise
            wait(time.monotonic() - start)
            time.sleep(LOCK_INTERVAL)
        except FileNotFoundError:  # removed between the two looks
            os.close(descriptor)
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        else:
            os.close(descriptor)


def check_output(path: Path, *sources: str | Path | None) -> None:
    """Try whether a file can be written, before the work that fills it; nothing is left behind.

    Args:
        sources: what else the work reads or writes. None may be the file, by whatever name.

    Raises:
        OutputError: it can't be written, or is a source.
    """
    with writing(path):
        if not stat.S_ISDIR(find_mode(path.absolute().parent)):
            raise OutputError(path, "there is no such folder")
        if stat.S_ISDIR(find_mode(path)):
            raise OutputError(path, "it is a folder")
        for source in sources:
            if source and is_same_file(path, source):
                raise OutputError(path, f"{source} is the same file: name another")
        if path.exists():
            path.open("r+b").close() if path.is_file() else None
        else:
            with TemporaryFile(dir=path.absolute().parent, prefix=".", suffix=".part"):
                pass


def is_there(path: Path) -> bool:
    """Whether something is there, as far as this user may look.

    ``Path.exists`` raises an error in a folder that they may not enter.
    """
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Whether a file is there; False also where no file could be, as under too long a name."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether a folder is there, as far as this user may look."""
    return os.path.isdir(path)  # noqa: PTH112


def find_mode(path: Path, refuse: Callable[[str], Exception] | None = None) -> int:
    """``st_mode`` of what is there, 0 where nothing is.

    Raises:
        PermissionError: this user may not look, so that nobody knows. With ``refuse``, what that
            makes of the system's words.
    """
    try:
        return path.stat().st_mode
    except PermissionError as error:
        if refuse is None:
            raise
        raise refuse(str(error.strerror)) from error
    except (OSError, ValueError):  # no file's name, a loop of links
        return 0


def may_be_file(path: Path) -> bool:
    """Whether something else than a folder is there, or may be where this user may not look."""
    try:
        mode = find_mode(path)
    except PermissionError:
        return True
    return bool(mode) and not stat.S_ISDIR(mode)


def describe_fault(path: Path, wanted: str = "file") -> str | None:
    """Why something can't be read as a file, in words that follow its name; None if it can.

    It isn't opened: a pipe would wait for a writer.

    Args:
        wanted: what it should be, such as ``clip``.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "there is no such file"
    except (OSError, ValueError) as error:
        return f"can't be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(found.st_mode):
        return f"is a folder, not a {wanted}"
    if not stat.S_ISREG(found.st_mode):
        return f"is a device or a pipe, not a {wanted}"
    if not os.access(path, os.R_OK):
        return f"can't be read ({os.strerror(errno.EACCES)})"
    return None if found.st_size else "the file is empty"


def is_same_file(path: Path, source: str | Path) -> bool:
    """Whether two names are of one file, there already or not."""
    try:
        if path.exists():
            return path.samefile(source)
        return path.resolve() == Path(source).resolve()
    except (OSError, ValueError, RuntimeError):  # no file's name; a loop of links
        return False


def hash_file(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal.

    Raises:
        OSError: it can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_graph(file: Path) -> bytes:
    """Content of a graph's file, unpacked where its name says that it is packed.

    Raises:
        OSError: it can't be read, isn't what gzip wrote, or is larger than 512 MB.
    """
    return unpack(file.read_bytes(), file.name)


def unpack(content: bytes, name: str) -> bytes:
    """Content of the file ``name``, unpacked where that says that it is packed.

    Raises:
        OSError: it isn't what gzip wrote, or is larger than 512 MB.
    """
    if not name.endswith(PACKED_SUFFIX):
        return content
    try:
        with gzip.GzipFile(fileobj=BytesIO(content)) as packed:
            unpacked = packed.read(MOST_UNPACKED + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise gzip.BadGzipFile(f"{name} can't be unpacked: {error}") from error
    if len(unpacked) > MOST_UNPACKED:
        raise gzip.BadGzipFile(f"{name} can't be unpacked: it has more than 512 MB")
    return unpacked


def pack_graph(file: Path) -> Path:
    """Put ``FILE.gz`` in place of ``FILE``; the same content always gives the same bytes.

    Raises:
        OSError: it can't be written.
    """
    packed = file.with_name(f"{file.name}{PACKED_SUFFIX}")
    # gzip.compress notes the system in some versions of Python, and GzipFile a name and a date.
    with packed.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as stream:
        stream.write(file.read_bytes())
    file.unlink()
    return packed
