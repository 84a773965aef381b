"""A picture of probabilities over time, one panel for each face, drawn with OpenCV."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.stream.event import StreamEvent

Picture = NDArray[np.uint8]

#: Pixels.
WIDTH, PANEL = 1400, 300
LEFT, RIGHT, TOP, STRIP, FOOT = 64, 170, 34, 12, 46
#: Faces that get a panel of their own, at most: those seen longest.
MOST_PANELS = 12
#: RGB of the labels that have a line of their own; others are grey.
COLOURS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
    (120, 94, 240),
    (150, 120, 0),
)
INK, GREY, FAINT, PAPER = (40, 40, 44), (150, 150, 156), (226, 226, 230), (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Part of a pixel that lines are drawn to, as a power of two.
SHIFT = 4


class _Track:
    """One panel's answers, in few bytes each."""

    def __init__(self) -> None:
        self.times, self.shares, self.flags = array("d"), array("f"), array("B")

    def add(self, time: float, shares: Sequence[float], face: bool, voice: bool) -> None:
        self.times.append(time)
        self.shares.extend(shares)
        self.flags.append(face + 2 * voice)


class Chart:
    """Collects answers, and draws them: each stands at the middle of its window.

    Args:
        labels: in the order of probabilities.
        window: seconds that an answer is about.
        step: seconds from answer to answer; where more are between two, the line is broken.
        by_face: a panel for each face, instead of one for all answers.
    """

    def __init__(self, labels: Sequence[str], window: float, step: float, *, by_face: bool) -> None:
        self._labels, self._window, self._step = tuple(labels), window, step
        self._by_face = by_face
        self._tracks: dict[int | None, _Track] = {}
        self._end = 0.0

    def add(self, event: StreamEvent) -> None:
        """Take an answer."""
        key = event.track if self._by_face else None
        track = self._tracks.setdefault(key, _Track())
        nothing = 0.0 if event.label is not None else np.nan
        shares = [event.probabilities.get(label, nothing) for label in self._labels]
        track.add((event.start + event.end) / 2, shares, event.face, event.voice)
        self._end = max(self._end, event.end)

    def encode(self) -> bytes:
        """The picture as a PNG."""
        done, data = cv2.imencode(".png", cv2.cvtColor(self.draw(), cv2.COLOR_RGB2BGR))
        if not done:
            raise OSError("the picture can't be encoded")
        return data.tobytes()

    def draw(self) -> Picture:
        """(H, W, 3) uint8 RGB."""
        ordered = sorted(self._tracks.items(), key=lambda item: -len(item[1].times))[:MOST_PANELS]
        ordered.sort(key=lambda item: (item[0] is None, item[0] or 0))
        panels = [self._draw_panel(key, track) for key, track in ordered]
        foot = _blank(FOOT)
        left_out = len(self._tracks) - len(panels)
        note = f"each answer stands at the middle of its {self._window:g} s; beside labels: means"
        if left_out:
            note += f"; {left_out} faces that were seen for less time are left out"
        _write(foot, note, (LEFT, 36), GREY)
        for time in self._ticks():
            text = f"{int(time) // 60}:{int(time) % 60:02d}"
            _write(foot, text, (self._x(time) - 4 * len(text), 14), INK)
        return np.vstack([*panels, foot])

    def _draw_panel(self, number: int | None, track: _Track) -> Picture:
        panel = _blank(PANEL)
        bottom = PANEL - 3 * STRIP - 8
        shares = np.frombuffer(track.shares, np.float32).reshape(-1, len(self._labels))
        times, flags = np.frombuffer(track.times), np.frombuffer(track.flags, np.uint8)
        title = "" if not self._by_face else "no face" if number is None else f"face {number}"
        _write(panel, title, (LEFT, 20), INK)
        for level in (0.0, 0.5, 1.0):
            y = round(bottom + level * (TOP - bottom))
            cv2.line(panel, (LEFT, y), (WIDTH - RIGHT, y), FAINT, 1)
            _write(panel, f"{100 * level:.0f} %", (12, y + 4), INK)
        for time in self._ticks():
            cv2.line(panel, (self._x(time), TOP), (self._x(time), bottom), FAINT, 1)
        means = np.nan_to_num(shares).mean(axis=0)
        ranked = np.argsort(-means, kind="stable").tolist()
        colours = [GREY] * len(self._labels)
        for place, label in enumerate(sorted(ranked[: len(COLOURS)])):
            colours[label] = COLOURS[place]
        xs = LEFT + times / max(self._end, 1e-6) * (WIDTH - RIGHT - LEFT)
        for label in reversed(ranked):  # the most probable on top
            ys = bottom + shares[:, label] * (TOP - bottom)
            for run in self._runs(times, np.isfinite(ys)):
                points = np.stack([xs[run], ys[run]], axis=1)[:, None]
                fixed = np.round(points * (1 << SHIFT)).astype(np.int32)
                cv2.polylines(panel, [fixed], False, colours[label], 2, cv2.LINE_AA, SHIFT)
        self._draw_strips(panel, xs, shares, flags, colours, bottom)
        for place, label in enumerate(ranked[: len(COLOURS)]):
            text = f"{self._labels[label]} {means[label]:.0%}"
            _write(panel, text, (WIDTH - RIGHT + 14, TOP + 12 + 24 * place), colours[label])
        return panel

    def _draw_strips(
        self,
        panel: Picture,
        xs: NDArray[Any],
        shares: NDArray[np.float32],
        flags: NDArray[np.uint8],
        colours: Sequence[tuple[int, int, int]],
        bottom: int,
    ) -> None:
        """Below the lines: the label of each moment, and whether face and voice were there."""
        # Each answer reaches half way to its neighbours, but not over a hole.
        half = self._step / max(self._end, 1e-6) * (WIDTH - RIGHT - LEFT) / 2
        known = np.asarray(np.isfinite(shares).all(axis=1))
        best = np.nan_to_num(shares).argmax(axis=1)
        rows: list[list[tuple[int, int, int] | None]] = [
            [
                colours[k] if there else None
                for k, there in zip(best.tolist(), known.tolist(), strict=True)
            ],
            [GREY if flag & 1 else None for flag in flags],
            [GREY if flag & 2 else None for flag in flags],
        ]
        for place, (name, row) in enumerate(zip(("label", "face", "voice"), rows, strict=True)):
            top = bottom + 6 + place * STRIP
            _write(panel, name, (12, top + 9), INK)
            for x, colour in zip(xs, row, strict=True):
                if colour is not None:
                    ends = (round(x - half), top), (round(x + half), top + STRIP - 4)
                    cv2.rectangle(panel, *ends, colour, -1)

    def _runs(self, times: NDArray[Any], known: NDArray[np.bool_]) -> Iterator[slice]:
        """Where a line goes on without a hole."""
        breaks = np.flatnonzero((np.diff(times) > 1.5 * self._step) | ~known[1:] | ~known[:-1])
        for first, last in zip([0, *(breaks + 1)], [*(breaks + 1), len(times)], strict=True):
            if known[first]:
                yield slice(first, last)

    def _x(self, time: float) -> int:
        return round(LEFT + time / max(self._end, 1e-6) * (WIDTH - RIGHT - LEFT))

    def _ticks(self) -> list[float]:
        steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
        step = next((s for s in steps if self._end / s <= 16), 28800)
        return [float(t) for t in range(0, int(self._end) + 1, step)]


def _blank(height: int) -> Picture:
    return np.full((height, WIDTH, 3), PAPER, np.uint8)


def _write(picture: Picture, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(picture, text, at, FONT, 0.42, colour, 1, cv2.LINE_AA)
