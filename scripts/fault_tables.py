"""Counts of ``prove_faults``, as docs/reliability.json has them, to Markdown tables."""

from __future__ import annotations

from typing import Any

from table_rows import head, row

Json = dict[str, Any]


def format_kills(data: Json) -> str:
    """Command by kills, and how many of its runs between had to end well."""
    lines = head("command", "kills", "by signal", "runs that ended well", "s a run", "problems")
    for one in data.get("faults", {}).get("kills", ()):
        signals = ", ".join(f"{name} {count}" for name, count in one["signals"].items())
        problems = len(one["problems"])
        cells = (one["kills"], signals, one["finished"], f"{one['seconds']:.0f}", problems)
        lines.append(row(one["command"], *cells))
    return "\n".join(lines)


def format_conditions(data: Json) -> str:
    """Condition by the commands that were run under it, and what was wrong."""
    found: dict[str, list[Json]] = {}
    for one in data.get("faults", {}).get("conditions", ()):
        found.setdefault(one["condition"], []).append(one)
    lines = head("condition", "commands", "problems")
    for condition, rows in found.items():
        commands = "; ".join(one["command"] for one in rows)
        lines.append(row(condition, commands, sum(len(one["problems"]) for one in rows)))
    return "\n".join(lines)
