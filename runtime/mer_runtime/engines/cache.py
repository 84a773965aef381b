"""What was made or found out on this device, kept under a key so that the next start is short.

An engine of TensorRT takes minutes: it is built once even by several processes, and one is told.
The rest, a graph as an engine prepared it or that a bundle passed its self-test, takes a second at
most: nothing waits for it, nothing is said about it, and where it can't be kept it is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from glob import escape
from pathlib import Path

from mer_runtime.bundle import Bundle, graph_stem
from mer_runtime.documents import parse_json
from mer_runtime.engines.builder import Progress
from mer_runtime.engines.processor import name_cpu, read_fact, read_instructions
from mer_runtime.errors import MerWarning, OutputError
from mer_runtime.files import locked
from mer_runtime.store import CACHE_VARIABLE, find_folder, make_folder, read_kept, write_kept

logger = logging.getLogger(__name__)

#: First line of an engine's file; the second is JSON, the rest is the engine's. Before version 2
#: graphs were kept that nobody had looked into.
MAGIC = b"mer-edge engine 2"
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
            # Of writers that were killed: whoever writes this engine holds the lock.
            for part in folder.glob(f".{escape(file.stem)}.*.part{file.suffix}"):
                part.unlink(missing_ok=True)
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
    magic, _, rest = (read_kept(path) or b"").partition(b"\n")
    text, _, engine = rest.partition(b"\n")
    try:
        header = parse_json(text)
    except ValueError:
        return None
    told = (header.get("key"), header.get("sha256")) if isinstance(header, dict) else None
    right = told == (key.text, hashlib.sha256(engine).hexdigest())
    return engine if right and magic == MAGIC else None


def write_engine(path: Path, key: EngineKey, engine: bytes) -> None:
    """Write an engine.

    Raises:
        OutputError: it can't be written.
    """
    header = {"key": key.text, "sha256": hashlib.sha256(engine).hexdigest()}
    write_kept(path, MAGIC + b"\n" + json.dumps(header).encode() + b"\n" + engine)


def _is_writable(folder: Path) -> bool:
    try:
        make_folder(folder)
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
                make_folder(folder)
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
