"""Several runs by turns, so that a machine that grows warm or busy slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

#: Seconds after which the threads of the run before have stopped waiting busily.
PAUSE = 0.05


def take_turns(
    runs: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: int = 0, seconds: float = 0.0
) -> dict[str, list[T]]:
    """Call each of ``runs`` once a round, in their order, after a pause.

    Args:
        rounds: how many count, at least.
        warm_up: rounds before these, which don't count.
        seconds: more rounds follow until so much time is over, warm-up and pauses included.

    Returns:
        By name what each gave, a value for every round that counts.
    """
    found: dict[str, list[T]] = {name: [] for name in runs}
    began, number = time.perf_counter(), -warm_up
    while number < rounds or time.perf_counter() - began < seconds:
        for name, run in runs.items():
            time.sleep(PAUSE)
            given = run()
            if number >= 0:
                found[name].append(given)
        number += 1
    return found
