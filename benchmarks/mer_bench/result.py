"""A run's results as JSON, written and read: every time, what it comes to, and where it was taken.

``format`` 1: ``machine`` and ``settings``; ``contenders``, each with ``single_stream`` (``times``
by measure and turn, ``summary`` by measure), ``offline``, ``start``, ``profile`` and, with a cache,
``accuracy``; ``ratios`` of every contender against the first; ``advice``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import av

from mer_bench.advice import advise
from mer_bench.contender import BenchError, Entry, Setting
from mer_bench.measurement import BATCH, BURST, STARTS, WARM_UP, Times
from mer_bench.subject import TOTAL, WINDOW
from mer_bench.summary import medians, summarise, turn_medians
from mer_runtime import __version__
from mer_runtime.bundle import load_bundle
from mer_runtime.documents import read_json
from mer_runtime.inputs.face import HAAR
from mer_runtime.intervals import find_interval, find_ratio

FORMAT_VERSION = 1
#: What contenders are compared by.
COMPARED = (TOTAL, WINDOW)
#: Bounds of what is compared: milliseconds, and turns of a contender.
LONGEST_TIME, MOST_TURNS = 1e12, 4096
#: Layers of a profile that are kept one by one; families count them all.
LAYERS_KEPT = 25


def assemble(
    entries: Sequence[Entry],
    times: Mapping[str, Times],
    setting: Setting,
    seconds: float,
    machine: Mapping[str, Any],
    accuracy: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything of a run, JSON-ready.

    Args:
        seconds: measured for each contender in each mode.
        machine: ``describe_machine()``, with the states ``before`` and ``after``.
        accuracy: by contender's name, as ``mer_bench.accuracy`` gives it.
    """
    clip = clip_seconds(setting.clip)
    contenders = []
    for entry in entries:
        described = describe_contender(entry, times[entry.name], clip)
        described["accuracy"] = accuracy[entry.name] if accuracy else None
        contenders.append(described)
    ratios = compare_contenders(contenders)
    return {
        "format": FORMAT_VERSION,
        "made_by": f"mer-edge {__version__}",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": dict(machine),
        "settings": {
            "clip": setting.clip.name,
            "clip_seconds": round(clip, 3),
            "threads": setting.threads,
            "cores": list(setting.cores),
            "seconds": seconds,
            "detector": HAAR if setting.detector == Path(HAAR) else "yunet",
            "backend": setting.backend,
            "starts": STARTS,
            "burst": BURST,
            "warm_up_turns": WARM_UP,
            "warm_up_queries_a_turn": 1,
            "offline_batch": BATCH,
        },
        "contenders": contenders,
        "ratios": ratios,
        "advice": advise(contenders, ratios, machine["flags"]),
    }


def describe_contender(entry: Entry, times: Times, clip: float) -> dict[str, Any]:
    """One contender's part, without accuracy; ``clip`` is the clip's length in seconds."""
    facts: dict[str, Any] = {"target": "pytorch", "precision": "fp32", "bytes": None}
    if entry.kind == "bundle":
        bundle = load_bundle(entry.model)
        sizes = [int(file["bytes"]) for file in bundle.manifest["files"].values()]
        facts = {"target": bundle.target, "precision": bundle.precision, "bytes": sum(sizes)}
    summary = {
        measure: summarise([time for turn in turns for time in turn]).to_dict()
        for measure, turns in times.turns.items()
    }
    for measure, turns in times.turns.items():
        summary[measure]["median_interval"] = find_interval(medians(turns)).to_dict()
    clips = sum(count for count, _ in times.batches)
    rates = [count / taken for count, taken in times.batches]
    middle = find_interval(rates)
    return {
        "name": entry.name,
        "kind": entry.kind,
        **facts,
        "engine": times.engine,
        "label": times.label,
        "start": {
            "first_ms": round(times.cold, 1),
            "later_ms": _rounded(times.starts),
            "load_ms": _rounded(times.loads),
        },
        "peak_memory_mb": None if times.memory is None else round(times.memory, 1),
        "single_stream": {
            "summary": summary,
            "clips_per_second": round(1e3 / summary[TOTAL]["mean"], 3),
            "real_time_factor": round(summary[TOTAL]["mean"] / 1e3 / clip, 5),
            "times": {
                measure: [_rounded(turn) for turn in turns]
                for measure, turns in times.turns.items()
            },
        },
        "offline": {
            "n": clips,
            "clips_per_second": middle.to_dict(),
            "times_real_time": round(middle.median * clip, 2),
            "batches": [[count, round(taken, 5)] for count, taken in times.batches],
        },
        "profile": _shorten_profile(times.profile),
    }


def compare_contenders(contenders: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster each contender is than the first, by turns drawn together."""
    if not contenders:
        return []
    first, *others = contenders
    return [
        {
            "slow": first["name"],
            "fast": other["name"],
            "measure": measure,
            **find_ratio(turn_medians(first, measure), turn_medians(other, measure)).to_dict(),
        }
        for other in others
        for measure in COMPARED
    ]


def clip_seconds(clip: Path) -> float:
    """A clip's length as its container states it, or of its longest stream."""
    with av.open(str(clip)) as container:
        if container.duration:
            return float(container.duration) / av.time_base
        return max(float((s.duration or 0) * (s.time_base or 0)) for s in container.streams)


def read_result(path: str | Path) -> dict[str, Any]:
    """A file that ``mer-bench --json-out`` wrote.

    Raises:
        BenchError: it isn't one, or another version of mer-edge wrote it.
    """
    try:
        result = read_json(Path(path))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} can't be read: {error}") from error
    if not isinstance(result, dict) or not {"format", "contenders", "machine"} <= set(result):
        raise BenchError(f"{path} holds no results of mer-bench: make them with --json-out")
    if result["format"] != FORMAT_VERSION:
        raise BenchError(
            f"{path} has format {result['format']}, this mer-edge reads {FORMAT_VERSION}: "
            "run mer-bench again"
        )
    try:
        _check_compared(result)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BenchError(f"{path} holds results that were edited: {error!r}"[:300]) from error
    return result


def _check_compared(result: Mapping[str, Any]) -> None:
    """See that what a comparison reads is what ``assemble`` writes.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: something is missing, of another type,
            or no time.
    """
    for name in ("machine", "settings"):
        _require(isinstance(result[name], dict), name)
    _require(isinstance(result["machine"]["versions"], dict), "versions")
    load = result["machine"]["before"]["load"]
    _require(isinstance(load, list) and all(map(_is_time, load)), "load")
    contenders = result["contenders"]
    _require(isinstance(contenders, list), "contenders")
    names = [one["name"] for one in contenders]
    _require(all(isinstance(name, str) for name in names), "name")
    _require(len(set(names)) == len(names), "two contenders of one name")
    for stream in (one["single_stream"] for one in contenders):
        for measure, turns in stream["times"].items():
            _require(isinstance(turns, list) and 0 < len(turns) <= MOST_TURNS, measure)
            for turn in turns:
                _require(
                    isinstance(turn, list) and bool(turn) and all(map(_is_time, turn)), measure
                )
            _require(_is_time(stream["summary"][measure]["p50"]), measure)


def _require(holds: bool, name: str) -> None:
    if not holds:
        raise ValueError(name)


def _is_time(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and 0 <= value <= LONGEST_TIME


def _shorten_profile(layers: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    if layers is None:
        return None
    families: dict[str, float] = {}
    for layer in layers:
        family = layer["family"]
        families[family] = families.get(family, 0.0) + layer["milliseconds"]
    return {
        "milliseconds": round(sum(families.values()), 3),
        "count": len(layers),
        "families": {name: round(taken, 3) for name, taken in families.items()},
        "layers": [dict(layer) for layer in layers[:LAYERS_KEPT]],
    }


def _rounded(times: Sequence[float]) -> list[float]:
    return [round(time, 3) for time in times]
