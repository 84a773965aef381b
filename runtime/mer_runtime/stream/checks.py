"""What a stream takes from its user, and refuses."""

from __future__ import annotations

import math
from numbers import Real

from mer_runtime.errors import SpecError
from mer_runtime.inputs.given import LATEST
from mer_runtime.spec import VideoSpec


def count_hop_slots(hop: float | None, spec: VideoSpec) -> int:
    """How many slots a hop of so many seconds is; None is two slots.

    Raises:
        SpecError: it isn't a multiple of the slot, or longer than the window.
    """
    if hop is None:
        return min(2, spec.frames)
    slots = round(hop / spec.slot) if math.isfinite(hop) else 0
    if not 1 <= slots <= spec.frames or abs(slots * spec.slot - hop) > 1e-6:
        fitting = ", ".join(f"{n * spec.slot:g}" for n in range(1, min(spec.frames, 4) + 1))
        raise SpecError(
            f"hop must be a multiple of {spec.slot:g} seconds, up to {spec.window:g} "
            f"({fitting}, ...), not {hop:g}"
        )
    return slots


def check_time(time: float) -> None:
    """Refuse a time that isn't a number, or that no clock shows.

    Raises:
        SpecError: it isn't.
    """
    # Numbers of numpy's are real ones, too.
    if not isinstance(time, Real) or not abs(time) <= LATEST:
        raise SpecError(
            f"a time on the stream's clock must be a finite number within {LATEST:g} seconds of "
            f"zero, not {time!r}"
        )
