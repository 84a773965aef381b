"""The course of a run: starts, turns of single queries, turns of batches, profiles.

Modes bear MLPerf Inference's names (Reddi et al. 2020); this is no MLPerf result. *Single-stream*:
one clip at a time, latency by percentile. *Offline*: all clips are there at once, throughput.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_bench.contender import Contender, Entry, Setting
from mer_bench.subject import MEASURES

#: Starts of each contender's process, after a first one that finds nothing prepared.
STARTS = 2
#: Queries of one turn: enough that what another left in the caches doesn't show in most of them.
BURST = 4
#: Turns that don't count, and the least that do.
WARM_UP, LEAST_TURNS = 1, 3
#: Clips of each copy in a turn of offline mode.
BATCH = 4
#: Seconds after which the threads of the contender before have stopped waiting busily.
PAUSE = 0.05
#: Windows of a profile.
PROFILED = 10
#: Telling how far it is: what is done, of how many steps.
Tell = Callable[[str], None]


@dataclass
class Times:
    """Everything that was measured of one contender; times in milliseconds.

    Attributes:
        cold: process start to answer where no graph was prepared yet.
        starts, loads: the same and loading alone, at later starts.
        turns: by measure, the times of each turn.
        batches: (clips, seconds) of each turn of offline mode.
        memory: megabytes that the process held at most in single-stream mode.
    """

    engine: str = ""
    label: str = ""
    cold: float = 0.0
    starts: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    turns: dict[str, list[list[float]]] = field(default_factory=dict)
    batches: list[tuple[int, float]] = field(default_factory=list)
    memory: float | None = None
    profile: list[dict[str, Any]] | None = None


def measure(
    entries: Sequence[Entry], setting: Setting, seconds: float, tell: Tell
) -> dict[str, Times]:
    """Run all contenders by turns; ``seconds`` is for each contender in each mode.

    Graphs are prepared in a folder of its own, so that the first start is a first one.

    Raises:
        BenchError: a contender can't be run.
    """
    times = {entry.name: Times() for entry in entries}
    with tempfile.TemporaryDirectory(prefix="mer-bench-") as folder, ExitStack() as stack:
        cache = Path(folder)
        contenders = []
        for number in range(1 + STARTS):
            tell(f"starting, {number + 1} of {1 + STARTS}")
            for entry in entries:
                time.sleep(PAUSE)
                contender = Contender(entry, setting, cache=cache)
                note_start(times[entry.name], contender, first=number == 0)
                if number < STARTS:
                    contender.close()
                else:
                    contenders.append(stack.enter_context(contender))
        tell("single-stream")
        take_turns(contenders, times, seconds)
        for contender in contenders:
            times[contender.name].memory = contender.read_memory()
        tell("profiles")
        for contender in contenders:
            times[contender.name].profile = contender.profile(PROFILED)
        for contender in contenders:
            contender.close()
        tell("offline")
        copies = [
            stack.enter_context(Contender(entry, setting, copies=setting.threads, cache=cache))
            for entry in entries
        ]
        take_batches(copies, times, seconds)
    return times


def note_start(times: Times, contender: Contender, *, first: bool) -> None:
    """Keep what a start took."""
    times.engine, times.label = contender.engine, contender.label
    if first:
        times.cold = contender.start
    else:
        times.starts.append(contender.start)
        times.loads.append(contender.load)


def take_turns(contenders: Sequence[Contender], times: dict[str, Times], seconds: float) -> None:
    """Single queries, a burst each, until every contender had its seconds on average."""
    began, turn = time.perf_counter(), -WARM_UP
    while turn < LEAST_TURNS or time.perf_counter() - began < seconds * len(contenders):
        for contender in contenders:
            time.sleep(PAUSE)
            queries = contender.time_queries(BURST)
            if turn >= 0:
                for name in MEASURES:
                    found = [query[name] for query in queries if name in query]
                    if found:
                        times[contender.name].turns.setdefault(name, []).append(found)
        turn += 1


def take_batches(contenders: Sequence[Contender], times: dict[str, Times], seconds: float) -> None:
    """Batches by turns, as ``take_turns``."""
    began, turn = time.perf_counter(), -WARM_UP
    while turn < LEAST_TURNS or time.perf_counter() - began < seconds * len(contenders):
        for contender in contenders:
            time.sleep(PAUSE)
            batch = contender.time_batch(BATCH)
            if turn >= 0:
                times[contender.name].batches.append(batch)
        turn += 1
