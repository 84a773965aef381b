"""What a stream has taken in, lost and spent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import thread_time
from typing import Any


@dataclass
class StreamStatistics:
    """Counters since the stream began.

    Attributes:
        frames: frames pushed.
        used: frames that a slot took: at most one a slot, the others are never looked at.
        dropped: used frames that were dropped because inference was behind.
        late: frames older than one before them, which are passed over.
        samples: samples pushed, at their own rate, one for all channels.
        late_samples: samples that came too late for the buffer, or that others already hold.
        gaps: places in the sound where samples are missing; they became zeros.
        non_finite: samples that were not finite numbers; they became zeros.
        rates: changes of the sample rate in mid-stream.
        resets: jumps of the clock, back or by more than a window, that emptied the buffers.
        realigned: corrections of the sound's clock, which drifts from the picture's.
        events: events made.
        skipped: hops without an event because a later window was complete already: inference
            was behind, or one kind of input.
        unread: events that were lost because nobody read them.
        crops: face crops that were encoded.
        cpu_seconds: CPU time of the engine's thread by stage (face, encode, mfcc, head).
    """

    frames: int = 0
    used: int = 0
    dropped: int = 0
    late: int = 0
    samples: int = 0
    late_samples: int = 0
    gaps: int = 0
    non_finite: int = 0
    rates: int = 0
    resets: int = 0
    realigned: int = 0
    events: int = 0
    skipped: int = 0
    unread: int = 0
    crops: int = 0
    cpu_seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("face", "encode", "mfcc", "head"), 0.0)
    )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        data = asdict(self)
        data["cpu_seconds"] = {stage: round(s, 3) for stage, s in self.cpu_seconds.items()}
        return data

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add this thread's CPU time in the block to ``stage``."""
        start = thread_time()
        try:
            yield
        finally:
            self.cpu_seconds[stage] += thread_time() - start
