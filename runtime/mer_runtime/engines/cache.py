"""What was made or found out on this device, kept under a key so that the next start is short.

An engine of TensorRT takes minutes: it is built once even by several processes, and one is told.
The rest, a graph as an engine prepared it or that a bundle passed its self-test, takes a second at
most: nothing waits for it, nothing is said about it, and where it can't be kept it is made again.

What is kept runs as it is, so it is taken only from a folder and a file that nobody but this user
can have written: never from a bundle's, never from one that others may write to.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from mer_runtime.bundle import Bundle, graph_stem
from mer_runtime.documents import parse_json
from mer_runtime.engines.builder import Progress
from mer_runtime.engines.processor import name_cpu, read_fact, read_instructions
from mer_runtime.errors import MerWarning, OutputError
from mer_runtime.files import NO_LINK, locked, write_file

logger = logging.getLogger(__name__)

#: Names the folder for what is kept.
CACHE_VARIABLE = "MER_CACHE"
DEFAULT_CACHE = Path("~/.cache/mer-edge/engines")
#: No folder: nothing is found in it, and nothing can be kept there.
NOWHERE = Path(os.devnull)
#: For this user alone.
FOLDER_MODE, FILE_MODE = 0o700, 0o600
#: Others who may write to it.
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
#: First line of an engine's file; the second is JSON, the rest is the engine's. Before version 2
#: graphs were kept that nobody had looked into.
MAGIC = b"mer-edge engine 2\n"
#: Bytes of each of the two lines.
LONGEST_HEADER = 1 << 16
#: Inside the folder for engines.
GRAPHS_FOLDER = "graphs"
#: Files kept in a folder, those written last: exports and trials would fill the disk otherwise.
KEPT = 32
#: What tells two models apart in Linux's description of them.
CPU_FACTS = ("model name", "flags", "Features", "CPU implementer", "CPU part")
#: Seconds of silence before a line says what is being waited for.
PATIENCE = 2.0


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from, by and for. One that differs in anything isn't loaded.

    Attributes:
        graph: sha256 of the ONNX graph, of its unpacked bytes.
        builder: TensorRT's flavour and version, such as ``tensorrt 10.3.0``.
        device: the GPU's name and compute capability, such as ``Orin sm87``.
        profile: shapes of the dynamic inputs, see ``builder.Profile``.
    """

    graph: str
    builder: str
    device: str
    profile: Mapping[str, Sequence[Sequence[int]]]

    @property
    def text(self) -> str:
        """The key as JSON: what is compared."""
        return json.dumps(asdict(self), sort_keys=True)

    def file_name(self, stem: str) -> str:
        """File of an engine: readable, and another one for each key."""
        builder = "-".join(self.builder.split())
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return f"{stem}-{builder}-{digest[:16]}.engine"


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


def _is_private(found: os.stat_result) -> bool:
    """Whether a file or folder is this user's, and nobody else may write to it."""
    if sys.platform == "win32":
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & OTHERS_WRITE


def _make(folder: Path) -> None:
    folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)


def load_or_build(
    stem: str,
    key: EngineKey,
    folder: Path,
    build: Callable[[Progress], bytes],
    *,
    rebuild: bool = False,
) -> bytes:
    """The engine under ``key``, built if ``folder`` hasn't got it.

    Processes that want the same engine wait for the first, which leaves it there. What takes more
    than two seconds is said on standard error, where that is a terminal.

    Args:
        stem: begins the file's name: the graph's.
        build: called where there is no such engine, or only a damaged one.
        rebuild: replace what is there.

    Raises:
        EngineError: ``build`` failed.
    """
    file = folder / key.file_name(stem)
    engine = None if rebuild else read_engine(file, key)
    if engine is not None:
        logger.info("engine of %s from %s", stem, file)
        return engine
    with _notice() as show:

        def build_aloud() -> bytes:
            what = f"building the {key.builder} engine of {stem} for this device, once"
            return build(lambda seconds, phase: show(f"{what}: {phase}", seconds))

        if not _is_writable(folder):
            _warn_uncached(folder)
            return build_aloud()
        waiting = partial(show, "waiting for the process that is building the engine")
        with locked(file.with_name(f"{file.name}.lock"), waiting):
            # Another process may have built it while this one waited.
            engine = None if rebuild else read_engine(file, key)
            if engine is None:
                engine = build_aloud()
                logger.info("engine of %s built: %s", stem, file)
                try:
                    write_engine(file, key, engine)
                except OutputError as error:
                    _warn_uncached(folder, error)
            return engine


def read_engine(path: Path, key: EngineKey) -> bytes | None:
    """An engine; None where there is none that this user wrote, under this key and undamaged."""
    try:
        # A pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | NO_LINK | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not (stat.S_ISREG(found.st_mode) and _is_private(found)):
                return None
            if file.readline(LONGEST_HEADER) != MAGIC:
                return None
            header = parse_json(file.readline(LONGEST_HEADER))
            engine = file.read()
    except (OSError, ValueError):
        return None
    told = (header.get("key"), header.get("sha256")) if isinstance(header, dict) else None
    return engine if told == (key.text, hashlib.sha256(engine).hexdigest()) else None


def write_engine(path: Path, key: EngineKey, engine: bytes) -> None:
    """Write an engine.

    Raises:
        OutputError: it can't be written.
    """
    header = {"key": key.text, "sha256": hashlib.sha256(engine).hexdigest()}
    write_file(path, MAGIC + json.dumps(header).encode() + b"\n" + engine, FILE_MODE)


def _is_writable(folder: Path) -> bool:
    try:
        _make(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _warn_uncached(folder: Path, error: OutputError | None = None) -> None:
    reason = f": {error.reason}" if error else ""
    warnings.warn(
        f"the engine can't be kept in {folder}{reason}, so each start builds it again: name a "
        f"folder that can be written to in ${CACHE_VARIABLE}",
        MerWarning,
        stacklevel=3,
    )


@contextmanager
def _notice() -> Iterator[Callable[[str, float], None]]:
    """One line on a terminal's standard error, kept up to date, then ended."""
    shown = False

    def show(what: str, seconds: float) -> None:
        nonlocal shown
        if seconds >= PATIENCE and sys.stderr.isatty():
            shown = True
            # To the line's start, and after the text erase the rest of a longer one.
            print(f"\r{what} ({seconds:.0f} s)\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if shown:
            print(file=sys.stderr, flush=True)


@dataclass(frozen=True)
class KeptFile:
    """The place of what one version of an engine made of one thing on one kind of processor."""

    key: EngineKey
    path: Path

    def read(self) -> bytes | None:
        """What was kept; None where there is nothing, or it is damaged or of another key."""
        content = read_engine(self.path, self.key)
        logger.debug("%s: %s", self.path, "not kept yet" if content is None else "taken as kept")
        return content

    def keep(self, content: bytes) -> None:
        """Keep it where that is possible; the oldest beyond ``KEPT`` go."""
        with suppress(OSError):
            for folder in (self.path.parent.parent, self.path.parent):
                _make(folder)
            write_engine(self.path, self.key, content)
            dated = [(f.stat().st_mtime, f) for f in self.path.parent.glob("*.engine")]
            for _, old in sorted(dated)[:-KEPT]:
                old.unlink()

    def drop(self) -> None:
        """Remove one that the engine refused."""
        with suppress(OSError):
            self.path.unlink()


def find_prepared(
    bundle: Bundle,
    graph: Path,
    engine: str,
    shapes: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> KeptFile:
    """Where a bundle's graph, prepared by ``engine``, is kept or may be.

    Args:
        graph: a file of the bundle; a file of weights beside it counts too.
        engine: name and version, and every setting that what it makes depends on.
        shapes: of inputs, where it is made for fixed ones.
    """
    files = bundle.manifest["files"]
    stem = graph_stem(graph)
    parts = [
        entry["sha256"] for name, entry in sorted(files.items()) if graph_stem(Path(name)) == stem
    ]
    digest = hashlib.sha256("".join(parts).encode()).hexdigest()
    key = EngineKey(digest, engine, describe_cpu(), shapes or {})
    return KeptFile(key, find_folder() / GRAPHS_FOLDER / key.file_name(stem))


def describe_cpu() -> str:
    """The processor's model and abilities, as text that differs where these do.

    Abilities are those that this process sees, too: an emulator, say, shows the host's description.
    """
    facts = {name: read_fact(name) for name in CPU_FACTS}
    found = repr((sorted(facts.items()), read_instructions()))
    abilities = hashlib.sha256(found.encode()).hexdigest()[:16]
    return f"{name_cpu()} {platform.machine()} {abilities}"
