"""Lines of a Markdown table."""

from __future__ import annotations


def head(*columns: str) -> list[str]:
    """The first two lines."""
    return [row(*columns), "|" + "---|" * len(columns)]


def row(*cells: object) -> str:
    """One line."""
    return "| " + " | ".join(map(str, cells)) + " |"
