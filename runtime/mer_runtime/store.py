"""What this device found out or made, kept for this user alone.

What is kept is trusted later, so it is taken only from a folder and a file that nobody else can
have written: never from a bundle's, never from one that others may write to.
"""

from __future__ import annotations

import os
import stat
import sys
import warnings
from pathlib import Path

from mer_runtime.errors import MerWarning
from mer_runtime.files import NO_LINK, write_file

#: Names the folder for what is kept.
CACHE_VARIABLE = "MER_CACHE"
DEFAULT_CACHE = Path("~/.cache/mer-edge/engines")
#: No folder: nothing is found in it, and nothing can be kept there.
NOWHERE = Path(os.devnull)
#: For this user alone.
FOLDER_MODE, FILE_MODE = 0o700, 0o600
#: Others who may write to it.
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def find_folder() -> Path:
    """Where things are kept: ``$MER_CACHE``, or a folder in the user's home.

    A folder of another user's, or one that others may write to, isn't used: a warning says so.
    """
    own = Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)
    try:
        own = own.expanduser()
        found = own.stat()
    except (OSError, ValueError):  # made when there is something to keep
        return own
    except RuntimeError:  # a user without a home
        return NOWHERE
    if not stat.S_ISDIR(found.st_mode) or _is_private(found):
        return own
    warnings.warn(
        f"{own} isn't used to keep what was prepared, since others can write to it: make it your "
        f"own (chmod 700), or name another folder in ${CACHE_VARIABLE}",
        MerWarning,
        stacklevel=3,
    )
    return NOWHERE


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, itself for this user alone.

    Raises:
        OSError: it can't be made.
    """
    folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)


def read_kept(path: Path) -> bytes | None:
    """A file's content; None where there is none that this user alone may have written."""
    try:
        # A pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | NO_LINK | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            return file.read() if stat.S_ISREG(found.st_mode) and _is_private(found) else None
    except (OSError, ValueError):
        return None


def write_kept(path: Path, content: bytes) -> None:
    """Write a file for this user alone, whole or not at all.

    Raises:
        OutputError: it can't be written.
    """
    write_file(path, content, FILE_MODE)


def _is_private(found: os.stat_result) -> bool:
    """Whether a file or folder is this user's, and nobody else may write to it."""
    if sys.platform == "win32":
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & OTHERS_WRITE
