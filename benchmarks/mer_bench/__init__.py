"""``mer-bench``: latency, memory and accuracy of bundles on the device that it runs on.

A worker process is timed from its start, so this imports nothing until it is asked for a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_bench.command import run_bench
    from mer_bench.comparison import compare_runs
    from mer_bench.contender import BenchError
    from mer_bench.report import render_report
    from mer_bench.result import read_result

__all__ = ["BenchError", "compare_runs", "read_result", "render_report", "run_bench"]

_HOMES = {
    "BenchError": "contender",
    "compare_runs": "comparison",
    "read_result": "result",
    "render_report": "report",
    "run_bench": "command",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"mer_bench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mer_bench' has no attribute {name!r}")
