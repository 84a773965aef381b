"""What an engine made of a graph for this processor, kept so that the next start is short.

Unlike a TensorRT engine it costs at most a second to make, so nothing waits for it, nothing is
said about it, and where it can't be kept it is made again.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mer_runtime.bundle import Bundle, graph_stem
from mer_runtime.engine_cache import EngineKey, cache_folders, read_engine, write_engine

#: Inside the folder for engines.
GRAPHS_FOLDER = "graphs"
#: Files kept, those written last: exports and trials would fill the disk otherwise.
KEPT = 32
#: Linux's description of the processors, and what tells two models apart in it.
CPU_INFO = Path("/proc/cpuinfo")
CPU_FACTS = ("model name", "flags", "Features", "CPU implementer", "CPU part")


@dataclass(frozen=True)
class PreparedGraph:
    """The place of one graph, prepared by one version of an engine for one kind of processor."""

    key: EngineKey
    path: Path

    def read(self) -> bytes | None:
        """What was kept; None where there is nothing, or it is damaged or of another key."""
        return read_engine(self.path, self.key)

    def keep(self, prepared: bytes) -> None:
        """Keep it where that is possible; the oldest beyond ``KEPT`` go."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_engine(self.path, self.key, prepared)
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
) -> PreparedGraph:
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
    return PreparedGraph(key, own / GRAPHS_FOLDER / key.file_name(stem))


@lru_cache(maxsize=1)
def describe_cpu() -> str:
    """The processor's model and abilities, as text that differs where these do."""
    facts: dict[str, str] = {}
    with suppress(OSError), CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if not value:
                break  # the first processor's end
            if name.strip() in CPU_FACTS:
                facts[name.strip()] = value.strip()
    abilities = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:16]
    model = facts.get("model name") or platform.processor() or platform.machine()
    return f"{model} {platform.machine()} {abilities}"
