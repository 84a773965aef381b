"""The course of a run: starts, turns of single queries, turns of batches, profiles.

Modes bear MLPerf Inference's names (Reddi et al. 2020); this is no MLPerf result. *Single-stream*:
one clip at a time, latency by percentile. *Offline*: all clips are there at once, throughput.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mer_bench.contender import Contender, Entry, Setting
from mer_bench.subject import MEASURES
from mer_runtime.turns import take_turns

#: Starts of each contender's process, after a first one that finds nothing prepared.
STARTS = 2
#: Queries of one turn: enough that what another left in the caches doesn't show in most of them.
BURST = 4
#: Turns that don't count, and the least that do.
WARM_UP, LEAST_TURNS = 1, 3
#: Clips of each copy in a turn of offline mode.
BATCH = 4
#: Windows of a profile.
PROFILED = 10
#: Told how far a run is.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Times:
    """Everything that was measured of one contender; times in milliseconds.

    Attributes:
        cold: process start to answer where no graph was prepared yet.
        starts, loads: the same and loading alone, at later starts.
        turns: by measure, the times of each turn.
        batches: (clips, seconds) of each turn of offline mode.
        memory: megabytes that the process held at most in single-stream mode.
        profile: times by layer; None where the engine doesn't tell.
    """

    engine: str
    label: str
    cold: float
    starts: list[float]
    loads: list[float]
    turns: dict[str, list[list[float]]]
    batches: list[tuple[int, float]]
    memory: float | None
    profile: list[dict[str, Any]] | None


def measure(
    entries: Sequence[Entry], setting: Setting, seconds: float, tell: Tell
) -> dict[str, Times]:
    """Run all contenders by turns; ``seconds`` is for each contender in each mode.

    Graphs are prepared in a folder of its own, so that the first start is a first one.

    Raises:
        BenchError: a contender can't be run.
    """
    limits: dict[str, Any] = {"warm_up": WARM_UP, "seconds": seconds * len(entries)}
    with tempfile.TemporaryDirectory(prefix="mer-bench-") as folder, ExitStack() as stack:
        cache = Path(folder)

        def start(entry: Entry, copies: int = 1) -> Contender:
            return stack.enter_context(open_contender(entry, setting, cache, copies))

        def start_and_end(entry: Entry) -> Contender:
            with open_contender(entry, setting, cache) as contender:
                return contender

        tell("starts")
        ended = take_turns({one.name: partial(start_and_end, one) for one in entries}, STARTS)
        opened = take_turns({one.name: partial(start, one) for one in entries}, 1)
        contenders = {name: one for name, (one,) in opened.items()}
        tell("single-stream")
        queries = take_turns(
            {name: partial(one.ask, "single", BURST) for name, one in contenders.items()},
            LEAST_TURNS,
            **limits,
        )
        memory = {name: one.ask("memory") for name, one in contenders.items()}
        tell("profiles")
        profiles = {name: one.ask("profile", PROFILED) for name, one in contenders.items()}
        for contender in contenders.values():
            contender.close()
        tell("offline")
        copies = [start(entry, setting.threads) for entry in entries]
        batches = take_turns(
            {one.name: partial(one.ask, "offline", BATCH) for one in copies}, LEAST_TURNS, **limits
        )
    return {
        name: Times(
            engine=str(last.facts["engine"]),
            label=str(last.facts["label"]),
            cold=ended[name][0].start,
            starts=[one.start for one in (*ended[name][1:], last)],
            loads=[float(one.facts["load"]) for one in (*ended[name][1:], last)],
            turns=group_times(queries[name]),
            batches=[(batch["clips"], batch["seconds"]) for batch in batches[name]],
            memory=memory[name],
            profile=profiles[name],
        )
        for name, last in contenders.items()
    }


def open_contender(entry: Entry, setting: Setting, cache: Path, copies: int = 1) -> Contender:
    """Start a worker that prepares graphs in ``cache``; several copies have one thread each.

    Raises:
        BenchError: it can't load its model or answer the clip.
    """
    threads = 1 if copies > 1 else setting.threads
    command: list[object] = [entry.kind, entry.model, setting.clip]
    command += ["--threads", threads, "--copies", copies]
    if setting.detector:
        command += ["--detector", setting.detector]
    if setting.backend:
        command += ["--backend", setting.backend]
    return Contender(
        entry.name,
        command,
        function="mer_bench.worker:main",
        threads=threads,
        cores=setting.cores,
        variables={"MER_CACHE": str(cache)},
    )


def group_times(turns: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, list[list[float]]]:
    """By measure the times of each turn; a measure that the clip lacks is left out."""
    found = {
        name: [times for turn in turns if (times := [one[name] for one in turn if name in one])]
        for name in MEASURES
    }
    return {name: times for name, times in found.items() if times}
