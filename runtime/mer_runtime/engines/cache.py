"""Engines built on this device: kept under a key, built once even by several processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from mer_runtime.engines.builder import Progress
from mer_runtime.errors import MerWarning, OutputError
from mer_runtime.files import locked, write_file

logger = logging.getLogger(__name__)

#: Names the folder for engines of bundles that can't be written to.
CACHE_VARIABLE = "MER_CACHE"
DEFAULT_CACHE = Path("~/.cache/mer-edge/engines")
#: No folder: nothing is found in it, and nothing can be kept there.
NOWHERE = Path(os.devnull)
#: Inside a bundle.
ENGINES_FOLDER = "engines"
#: First line of an engine's file; the second is JSON, the rest is TensorRT's.
MAGIC = b"mer-edge engine 1\n"
#: Seconds of silence before a line says what is being waited for.
PATIENCE = 2.0


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from, by and for. One that differs in anything isn't loaded.

    Attributes:
        graph: sha256 of the ONNX graph, of its unpacked bytes.
        builder: TensorRT's flavour and version, such as ``tensorrt 10.3.0``.
        device: the GPU's name and compute capability, such as ``Orin sm87``.
        profile: shapes of the dynamic inputs, see ``engine_builder.Profile``.
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


def cache_folders(bundle: Path) -> tuple[Path, Path]:
    """Where a bundle's engines are looked for, and written to if that is possible."""
    own = Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)
    try:
        own = own.expanduser()
    except RuntimeError:  # a user without a home
        own = NOWHERE
    return bundle / ENGINES_FOLDER, own


def load_or_build(
    stem: str,
    key: EngineKey,
    folders: Sequence[Path],
    build: Callable[[Progress], bytes],
    *,
    rebuild: bool = False,
) -> bytes:
    """The engine under ``key``, built if none of ``folders`` has it.

    Processes that want the same engine wait for the first, which leaves it in the first folder
    that can be written to. What takes more than two seconds is said on standard error, where
    that is a terminal.

    Args:
        stem: begins the file's name: the graph's.
        build: called where there is no such engine, or only a damaged one.
        rebuild: replace what is there.

    Raises:
        EngineError: ``build`` failed.
    """
    name = key.file_name(stem)
    if not rebuild:
        for folder in folders:
            engine = read_engine(folder / name, key)
            if engine is not None:
                logger.info("engine of %s from %s", stem, folder / name)
                return engine
    with _notice() as show:

        def build_aloud() -> bytes:
            what = f"building the {key.builder} engine of {stem} for this device, once"
            return build(lambda seconds, phase: show(f"{what}: {phase}", seconds))

        home = next((folder for folder in folders if _is_writable(folder)), None)
        if home is None:
            _warn_uncached(folders[-1])
            return build_aloud()
        waiting = partial(show, "waiting for the process that is building the engine")
        with locked(home / f"{name}.lock", waiting):
            # Another process may have built it while this one waited.
            engine = None if rebuild else read_engine(home / name, key)
            if engine is None:
                engine = build_aloud()
                logger.info("engine of %s built: %s", stem, home / name)
                try:
                    write_engine(home / name, key, engine)
                except OutputError as error:
                    _warn_uncached(home, error)
            return engine


def read_engine(path: Path, key: EngineKey) -> bytes | None:
    """An engine; None where there is none, or it is damaged, or its key is another."""
    try:
        with path.open("rb") as file:
            if file.readline() != MAGIC:
                return None
            header = json.loads(file.readline())
            engine = file.read()
    except (OSError, ValueError):
        return None
    found = (header.get("key"), header.get("sha256")) if isinstance(header, dict) else None
    return engine if found == (key.text, hashlib.sha256(engine).hexdigest()) else None


def write_engine(path: Path, key: EngineKey, engine: bytes) -> None:
    """Write an engine.

    Raises:
        OutputError: it can't be written.
    """
    header = {"key": key.text, "sha256": hashlib.sha256(engine).hexdigest()}
    write_file(path, MAGIC + json.dumps(header).encode() + b"\n" + engine)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
