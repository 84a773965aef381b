"""What was wrong with a clip, in sentences for its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mer_runtime.inputs.picks import FramePicks
from mer_runtime.inputs.timeline import Timeline
from mer_runtime.inputs.waveform import SILENCE, WaveformBuffer

CANCELLED = "its channels cancel each other out: one of them was taken"


def describe_jumps(timeline: Timeline) -> Iterator[str]:
    """Where a clock jumped."""
    if timeline.jumps:
        at, by = timeline.jumps[0]
        more = f", and {len(timeline.jumps) - 1} times more" if len(timeline.jumps) > 1 else ""
        yield f"its clock jumps by {by:.0f} s at {at:.1f} s{more}: taken as if it went on"


def describe_picture(picks: FramePicks, window: str) -> Iterator[str]:
    """What of a window has no picture; ``window`` names it."""
    count, shown = len(picks.shown), int(picks.shown.sum())
    if not shown:
        yield f"there is no picture {window}"
    elif shown < count:
        yield f"the picture stands still or is missing in {count - shown} of {count} frames"


def describe_sound(tracks: Mapping[int, WaveformBuffer], track: int, window: str) -> Iterator[str]:
    """What was missing or mended in the sound; ``track`` is the one listened to."""
    sound = tracks[track]
    if not sound.inside:
        yield f"there is no sound {window}"
    first = min(tracks)
    if track != first:
        lack = "has no voice" if tracks[first].peak > SILENCE else "is silent"
        yield f"audio track {first} {lack}: track {track} was listened to"
    if sound.unusable:
        yield describe_unusable(sound.unusable)
    if sound.cancelled:
        yield CANCELLED


def describe_unusable(count: int) -> str:
    """Samples that aren't finite numbers."""
    return f"samples of its sound that aren't numbers ({count}) count as silence"


def describe_rest(start: float, end: float, duration: float, covering: str) -> Iterator[str]:
    """That most of a long clip wasn't looked at; ``covering`` names what covers all of it."""
    if duration > 2 * (end - start):
        yield (
            f"only {start:.1f} to {end:.1f} s of its {duration:.1f} s were looked at: "
            f"{covering} covers all of it"
        )
