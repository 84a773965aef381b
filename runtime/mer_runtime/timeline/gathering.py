"""A recording's sound in fewer, longer chunks: taking one costs the same however long it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mer_runtime.inputs.waveform import STAMP_SLACK
from mer_runtime.live.sources.captured import Picture, Sound

#: Seconds by which the picture may be ahead of gathered sound: then it is handed on, as a stream
#: waits only so long for it.
LEAST_WAIT = 1.0


def gather_sound(items: Iterable[Picture | Sound], seconds: float) -> Iterator[Picture | Sound]:
    """The same pictures and samples, chunks that follow on each other joined to ``seconds``.

    The first chunk, and one before which time stamps leave a gap or overlap, by the rule of
    ``AudioRing``, comes at once and alone: the stream's clock may begin with it.
    """
    held: list[Sound] = []
    samples = 0
    follows: float | None = None  # what the next chunk's time stamp would be
    for item in items:
        if isinstance(item, Picture):
            if held and follows is not None and item.time > follows + LEAST_WAIT:
                yield _join(held)
                held, samples = [], 0
            yield item
            continue
        goes_on = follows is not None and abs(item.time - follows) <= STAMP_SLACK
        length = len(item.samples)
        too_long = samples + length > seconds * item.rate
        if held and (too_long or not goes_on or _kind(item) != _kind(held[0])):
            yield _join(held)
            held, samples = [], 0
        if follows is None or not goes_on:
            follows = item.time + item.seconds
            yield item
            continue
        held.append(item)
        samples += length
        follows += item.seconds
    if held:
        yield _join(held)


def _kind(sound: Sound) -> tuple[object, ...]:
    channels = sound.channels
    return sound.rate, sound.track, None if channels is None else (len(channels), channels.dtype)


def _join(held: list[Sound]) -> Sound:
    if len(held) == 1:
        return held[0]
    channels = [sound.channels for sound in held if sound.channels is not None]
    return replace(
        held[0],
        samples=np.concatenate([sound.samples for sound in held]),
        channels=np.concatenate(channels, axis=1) if channels else None,
    )
