"""What a stream takes from its user, and refuses."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np

from mer_runtime.errors import SpecError
from mer_runtime.inputs.container import MAX_CHANNELS, SAMPLE_RATES
from mer_runtime.spec import VideoSpec

#: Seconds from the clock's zero, either way: 317 years. Beyond, a slot is lost in rounding.
LATEST = 1e10


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


def check_sound(samples: object, sample_rate: int) -> None:
    """Refuse what isn't sound.

    Raises:
        SpecError: not an array (n,) or (channels, n) of floats or integers, or no such rate.
    """
    lowest, highest = SAMPLE_RATES
    if not isinstance(sample_rate, Integral) or not lowest <= sample_rate <= highest:
        raise SpecError(f"sample_rate must be {lowest} to {highest} Hz, not {sample_rate!r}")
    if not isinstance(samples, np.ndarray) or samples.ndim not in (1, 2):
        raise SpecError("samples must be an array (n,) or (channels, n)")
    if samples.ndim == 2 and not 1 <= len(samples) <= MAX_CHANNELS:
        raise SpecError(f"samples must have 1 to {MAX_CHANNELS} channels, not {len(samples)}")
    if samples.dtype.kind not in "if" and samples.dtype != np.uint8:
        raise SpecError(f"samples must be floats, uint8, int16 or int32, not {samples.dtype}")


def check_image(image: object) -> None:
    """Refuse what isn't an RGB picture.

    Raises:
        SpecError: not an array (H, W, 3) of uint8 with at least one pixel.
    """
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        shape = getattr(image, "shape", type(image).__name__)
        raise SpecError(
            f"a frame must be (H, W, 3) uint8 RGB, not {shape} {getattr(image, 'dtype', '')}"
        )
