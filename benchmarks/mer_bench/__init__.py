"""``mer-bench``: latency, memory and accuracy of bundles on the device that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_bench.advice import advise
    from mer_bench.comparison import Difference, compare_runs, find_slower, list_caveats
    from mer_bench.contender import BenchError, Contender, bind_children, choose_cores
    from mer_bench.machine import describe_machine
    from mer_bench.report import render_report
    from mer_bench.result import clip_seconds, read_result
    from mer_bench.run import run_bench
    from mer_bench.text import render_comparison, render_result
    from mer_runtime.intervals import Interval, find_interval, find_ratio, find_ratio_apart

__all__ = [
    "BenchError",
    "Contender",
    "Difference",
    "Interval",
    "advise",
    "bind_children",
    "choose_cores",
    "clip_seconds",
    "compare_runs",
    "describe_machine",
    "find_interval",
    "find_ratio",
    "find_ratio_apart",
    "find_slower",
    "list_caveats",
    "read_result",
    "render_comparison",
    "render_report",
    "render_result",
    "run_bench",
]

#: Which module has which names.
_HOMES = {
    ".advice": ("advise",),
    ".comparison": ("Difference", "compare_runs", "find_slower", "list_caveats"),
    ".contender": ("BenchError", "Contender", "bind_children", "choose_cores"),
    ".machine": ("describe_machine",),
    ".report": ("render_report",),
    ".result": ("clip_seconds", "read_result"),
    ".run": ("run_bench",),
    ".text": ("render_comparison", "render_result"),
    "mer_runtime.intervals": ("Interval", "find_interval", "find_ratio", "find_ratio_apart"),
}


def __getattr__(name: str) -> Any:
    # Not above: a worker runs in a peer's environment, which hasn't our runtime.
    from mer_runtime.lazy_imports import make_getattr

    return make_getattr(__name__, _HOMES)(name)
