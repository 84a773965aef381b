"""A bundle's folder while it is being made: a draft beside it, one rename at the end."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mer_runtime.bundle import MANIFEST_FILE
from mer_runtime.errors import OutputError
from mer_runtime.files import locked, make_folder, writing


def check_replaceable(folder: Path) -> None:
    """A bundle may be replaced, an empty folder filled; anything else is somebody's work.

    Raises:
        OutputError: there is something else.
    """
    with writing(folder):
        if folder.is_dir():
            if any(folder.iterdir()) and not (folder / MANIFEST_FILE).is_file():
                raise OutputError(folder, "the folder holds something else than a bundle")
        elif folder.exists():
            raise OutputError(folder, "a file of that name is there")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A draft folder beside ``folder`` that takes its place when the block ends well.

    Raises:
        OutputError: it can't be written, or another export is writing it.
    """
    parent = folder.absolute().parent
    make_folder(parent)
    # Known before they exist: an interrupt finds them whenever it comes.
    draft, old = (parent / f".{folder.name}.draft.{name}" for name in (os.getpid(), "old"))
    busy = "another export is writing it: wait for it or name another --out"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(parent / f".{folder.name}.lock"))
        except BlockingIOError as error:
            raise OutputError(folder, busy) from error
        try:
            with writing(folder):
                for left in parent.glob(f".{glob.escape(folder.name)}.draft.*"):  # of one killed
                    shutil.rmtree(left, ignore_errors=True)
                draft.mkdir()
                yield draft
                if folder.exists():
                    folder.replace(old)
                draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            if old.exists() and not folder.exists():
                old.replace(folder)
            shutil.rmtree(old, ignore_errors=True)
