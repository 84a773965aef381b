"""``mer-bench``: latency, memory and accuracy of bundles on the device that it runs on."""

from __future__ import annotations

from importlib import import_module
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

INTERVALS = "mer_runtime.intervals"
_HOMES = {
    "BenchError": "contender",
    "Contender": "contender",
    "Difference": "comparison",
    "Interval": INTERVALS,
    "advise": "advice",
    "bind_children": "contender",
    "choose_cores": "contender",
    "clip_seconds": "result",
    "compare_runs": "comparison",
    "describe_machine": "machine",
    "find_interval": INTERVALS,
    "find_ratio": INTERVALS,
    "find_ratio_apart": INTERVALS,
    "find_slower": "comparison",
    "list_caveats": "comparison",
    "read_result": "result",
    "render_comparison": "text",
    "render_report": "report",
    "render_result": "text",
    "run_bench": "run",
}


def __getattr__(name: str) -> Any:
    # Late: a worker's start is timed, and peers' environments lack what the rest needs.
    if name in _HOMES:
        home = _HOMES[name]
        module = import_module(home if "." in home else f"mer_bench.{home}")
        return getattr(module, name)
    raise AttributeError(f"module 'mer_bench' has no attribute {name!r}")
