"""A bundle's folder while it is being made: a draft beside it, one rename at the end."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mer_runtime.bundle import MANIFEST_FILE
from mer_runtime.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: two exports at once aren't noticed there
    fcntl = None  # type: ignore[assignment]


def check_replaceable(folder: Path) -> None:
    """A bundle may be replaced, an empty folder filled; anything else is somebody's work.

    Raises:
        OutputError: there is something else.
    """
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
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    with _locked(folder):
        try:
            drafts = f".{glob.escape(folder.name)}.draft.*"
            for left in parent.glob(drafts):  # of an export that was killed
                shutil.rmtree(left, ignore_errors=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.draft.", dir=parent))
        except OSError as error:
            raise OutputError(folder, error.strerror or str(error)) from error
        try:
            yield draft
            draft.chmod(0o755)  # mkdtemp's 0o700 is for its owner alone
            if folder.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.draft.", dir=parent))
                folder.replace(old)
                draft.replace(folder)
                shutil.rmtree(old)
            else:
                draft.replace(folder)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(folder, error.strerror or str(error)) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock file beside ``folder``."""
    path = folder.absolute().parent / f".{folder.name}.lock"
    try:
        file = path.open("w")
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    folder, "another export is writing it: wait for it or name another --out"
                ) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
