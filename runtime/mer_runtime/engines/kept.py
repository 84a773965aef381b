"""What was found out on this processor, kept so that the next start is short.

That is what an engine made of a graph, and that a bundle passed its self-test. Unlike a TensorRT
engine it costs at most a second, so nothing waits for it, nothing is said about it, and where it
can't be kept it is made again.
"""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mer_runtime.bundle import Bundle, graph_stem
from mer_runtime.engines.cache import EngineKey, cache_folders, read_engine, write_engine
from mer_runtime.engines.processor import name_cpu, read_fact, read_instructions

logger = logging.getLogger(__name__)

#: Inside the folder for engines.
GRAPHS_FOLDER = "graphs"
#: Files kept in a folder, those written last: exports and trials would fill the disk otherwise.
KEPT = 32
#: What tells two models apart in Linux's description of them.
CPU_FACTS = ("model name", "flags", "Features", "CPU implementer", "CPU part")


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
            self.path.parent.mkdir(parents=True, exist_ok=True)
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
    _, own = cache_folders(bundle.path)
    return KeptFile(key, own / GRAPHS_FOLDER / key.file_name(stem))


def describe_cpu() -> str:
    """The processor's model and abilities, as text that differs where these do.

    Abilities are those that this process sees, too: an emulator, say, shows the host's description.
    """
    facts = {name: read_fact(name) for name in CPU_FACTS}
    found = repr((sorted(facts.items()), read_instructions()))
    abilities = hashlib.sha256(found.encode()).hexdigest()[:16]
    return f"{name_cpu()} {platform.machine()} {abilities}"
