"""Sound that a program gives as an array: what is taken, and which axis has the channels."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import SpecError
from mer_runtime.inputs.container import MAX_CHANNELS, SAMPLE_RATES

#: Samples that a sound card gives at once, at least.
LEAST_CHUNK = 16


def check_sound(samples: object, sample_rate: object) -> None:
    """Refuse what isn't sound.

    Raises:
        SpecError: not an array (n,), (n, channels) or (channels, n) of floats or integers, or no
            such rate.
    """
    lowest, highest = SAMPLE_RATES
    if not isinstance(sample_rate, Real) or not float(sample_rate).is_integer():
        raise SpecError(f"sample_rate must be a whole number of Hz, not {sample_rate!r}")
    if not lowest <= float(sample_rate) <= highest:
        raise SpecError(f"sample_rate must be {lowest} to {highest} Hz, not {sample_rate!r}")
    if not isinstance(samples, np.ndarray) or samples.ndim not in (1, 2):
        shape = samples.shape if isinstance(samples, np.ndarray) else type(samples).__name__
        raise SpecError(
            f"samples must be an array (n,), (n, channels) or (channels, n), not {shape}"
        )
    if samples.dtype.kind not in "if" and samples.dtype != np.uint8:
        raise SpecError(f"samples must be floats, uint8, int16 or int32, not {samples.dtype}")


class ChannelOrder:
    """Brings a source's chunks to (channels, n), whichever way round they come.

    A side longer than ``MAX_CHANNELS`` has the samples; so has the longer side where the other is
    shorter than any sound card's chunk. A chunk as short as that in both directions is read as
    the chunks before it were, if it has as many channels.
    """

    def __init__(self) -> None:
        self._seen: tuple[bool, int] | None = None

    def arrange(self, samples: NDArray[Any], last: bool | None = None) -> NDArray[Any]:
        """A chunk (n,), (n, channels) or (channels, n) as (channels, n); a view.

        Args:
            last: whether the channels are the last axis, as of ``sounddevice`` and ``soundfile``,
                or the first, as of PyAV and ``torchaudio``; None finds out.

        Raises:
            SpecError: it isn't certain which axis has the channels, or there are too many.
        """
        if samples.ndim == 1:
            return samples[None]
        if min(samples.shape) > MAX_CHANNELS:
            raise SpecError(
                f"samples {samples.shape} have more than {MAX_CHANNELS} channels, whichever axis "
                "has them"
            )
        is_last = self._find_axis(samples) if last is None else last
        channels = samples.shape[1 if is_last else 0]
        if not 1 <= channels <= MAX_CHANNELS:
            raise SpecError(f"samples must have 1 to {MAX_CHANNELS} channels, not {channels}")
        self._seen = (is_last, channels)
        return samples.T if is_last else samples

    def _find_axis(self, samples: NDArray[Any]) -> bool:
        first, last = samples.shape
        if 0 in samples.shape:
            return first == 0
        if max(first, last) > MAX_CHANNELS or min(first, last) < LEAST_CHUNK <= max(first, last):
            return first > last
        if self._seen is not None and self._seen[1] == (last if self._seen[0] else first):
            return self._seen[0]
        raise SpecError(
            f"samples {samples.shape}: which axis has the channels isn't certain of so short a "
            "chunk; say channels_last=True for (n, channels) or False for (channels, n)"
        )
