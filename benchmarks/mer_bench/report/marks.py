"""Pieces of SVG and HTML, and the axis that charts share; every text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

#: Units of a chart's drawing, which the page scales to its column.
WIDTH = 760
#: Room on the left for names.
MARGIN = 150
ROW = 46


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` along a chart's width."""

    low: float
    high: float
    left: float = MARGIN
    right: float = WIDTH - 70

    def place(self, value: float) -> float:
        """Where a value stands."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return self.left + share * (self.right - self.left)

    def draw(self, y: float, unit: str, top: float = 0) -> str:
        """Ticks with numbers, from a grid that begins at ``top``."""
        parts = []
        for value in choose_ticks(self.low, self.high):
            x = self.place(value)
            parts.append(line(x, top, x, y, "grid"))
            parts.append(text(x, y + 16, f"{value:g}", "tick", "middle"))
        parts.append(text(self.right + 8, y + 16, unit, "tick"))
        return "".join(parts)


def choose_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers between two values, about ``count`` of them."""
    span = (high - low) or 1
    step = 10 ** math.floor(math.log10(span / count))
    step = next(step * f for f in (1, 2, 5, 10) if span / (step * f) <= count)
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A stroke of a class."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Text at a point, escaped."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def box(x: float, y: float, width: float, height: float, kind: str, told: str = "") -> str:
    """A rectangle; ``told`` shows when one points at it."""
    title = f"<title>{escape(told)}</title>" if told else ""
    size = f'width="{max(width, 0):.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{kind}">{title}</rect>'


def shape(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A polyline; filled where its class is."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" class="{kind}"/>'


def chart(height: float, content: str, described: str) -> str:
    """A drawing that scrolls by itself where the page is narrower than its numbers need."""
    return (
        f'<div class="chart"><svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(described)}">{content}</svg></div>'
    )


def legend(names: Mapping[str, str]) -> str:
    """Names by the class that colours them."""
    items = (f'<li><i class="{kind}"></i>{escape(name)}</li>' for kind, name in names.items())
    return f'<ul class="legend">{"".join(items)}</ul>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of text; the first column names the row."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def section(title: str, content: str, note: str = "") -> str:
    """A card with a heading; ``content`` is HTML already."""
    told = f"<p>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{told}{content}</section>"
