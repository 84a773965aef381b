"""How long a window takes: the bundle's engine against the same engine in float32 and PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from mer import Checkpoint
from mer.evaluate.classifier import NetworkClassifier
from mer_runtime.engines.processor import read_instructions
from mer_runtime.golden import Golden
from mer_runtime.intervals import Interval, find_ratio
from mer_runtime.recognizer import Recognizer
from mer_runtime.turns import take_turns

#: Rounds that count, and those before them.
ROUNDS, WARM_UP = 9, 2


@dataclass(frozen=True)
class Timing:
    """Medians of one interleaved run, in milliseconds a window; None where nothing was run.

    Attributes:
        engine: the bundle's.
        engine_fp32: the same engine's with the same network in float32.
        pytorch: the float reference, eager.
        threads: that all used.
        instructions: of the processor that the process saw (see ``mer_runtime.engines.processor``).
        rounds: how many times each answered.
        gain: how many times as fast as ``engine_fp32`` the bundle is, with its 95 % interval
            (``mer_runtime.intervals``); None where there is nothing to compare with.
    """

    engine: float
    engine_fp32: float | None
    pytorch: float
    threads: int
    instructions: tuple[str, ...]
    rounds: int = ROUNDS
    gain: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)

    @property
    def gains(self) -> bool:
        """Whether the bundle is faster than the same engine in float32, beyond noise."""
        return self.gain is not None and self.gain.low > 1


def time_windows(
    checkpoint: Checkpoint,
    golden: Golden,
    engine: Recognizer,
    engine_fp32: Recognizer | None,
    threads: int,
) -> Timing:
    """Let each contender answer the first golden window, in turns."""
    mfcc, faces = golden.case(0)
    assert mfcc is not None
    assert faces is not None
    network = NetworkClassifier(checkpoint)
    contenders: dict[str, Callable[[], object]] = {
        "engine": lambda: engine.infer(mfcc, faces),
        "pytorch": lambda: network.classify(mfcc, network.encode(faces)),
    }
    if engine_fp32 is not None:
        contenders["engine_fp32"] = lambda: engine_fp32.infer(mfcc, faces)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runs = {name: partial(_time_second, run) for name, run in contenders.items()}
        times = take_turns(runs, ROUNDS, warm_up=WARM_UP)
    finally:
        torch.set_num_threads(before)
    floats = times.get("engine_fp32")
    medians = {name: round(statistics.median(taken), 3) for name, taken in times.items()}
    return Timing(
        engine=medians["engine"],
        engine_fp32=medians.get("engine_fp32"),
        pytorch=medians["pytorch"],
        threads=threads,
        instructions=read_instructions(),
        gain=find_ratio(floats, times["engine"]) if floats else None,
    )


def _time_second(run: Callable[[], object]) -> float:
    """Milliseconds; the first call wakes the contender's threads."""
    run()
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)
