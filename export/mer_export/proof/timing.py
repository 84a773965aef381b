"""How long a window takes: the bundle's engine against the same engine in float32 and PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from mer import Checkpoint
from mer.evaluate.classifier import NetworkClassifier
from mer_runtime.engines.processor import read_instructions
from mer_runtime.golden import Golden
from mer_runtime.recognizer import Recognizer

#: Rounds in which every contender answers once, so that drift hits all alike.
ROUNDS, WARM_UP = 9, 2
#: Seconds after which the threads of the contender before have stopped waiting busily; the first
#: answer after it isn't timed, for it wakes its own.
PAUSE = 0.05
#: A gain of less is noise.
LEAST_GAIN = 1.05


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
    """

    engine: float
    engine_fp32: float | None
    pytorch: float
    threads: int
    instructions: tuple[str, ...]
    rounds: int = ROUNDS

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)

    @property
    def gains(self) -> bool:
        """Whether the bundle is faster than the same engine in float32."""
        return self.engine_fp32 is None or self.engine_fp32 >= LEAST_GAIN * self.engine


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
        medians = _interleave(contenders)
    finally:
        torch.set_num_threads(before)
    return Timing(
        engine=medians["engine"],
        engine_fp32=medians.get("engine_fp32"),
        pytorch=medians["pytorch"],
        threads=threads,
        instructions=read_instructions(),
    )


def _interleave(contenders: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(WARM_UP + ROUNDS):
        for name, run in contenders.items():
            time.sleep(PAUSE)
            run()
            start = time.perf_counter()
            run()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.round(1e3 * statistics.median(s), 3)) for name, s in seconds.items()}
