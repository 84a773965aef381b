"""Counts of ``prove_faults`` and ``fuzz``, as docs/reliability.json has them, to Markdown."""

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


def format_inputs(data: Json) -> str:
    """Subject by the inputs that it was fed, and what came of them."""
    lines = head("what was fed", "inputs", "refused with an error", "peak MB", "s", "faults")
    counts = data.get("fuzz", {})
    for name, one in counts.items():
        fed, seconds = f"{one['inputs']:,}".replace(",", " "), f"{one['seconds']:.0f}"
        refused, peak = one.get("refused", ""), one.get("peak_mb", "")
        lines.append(row(name, fed, refused, peak, seconds, int(bool(one["fault"]))))
    total = f"{sum(one['inputs'] for one in counts.values()):,}".replace(",", " ")
    faults = sum(bool(one["fault"]) for one in counts.values())
    lines.append(row("**all**", f"**{total}**", "", "", "", f"**{faults}**"))
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
