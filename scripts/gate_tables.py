"""What was measured of the gate, as docs/gate.json has it, to Markdown tables."""

from __future__ import annotations

from typing import Any

from mer.weights import SHIPPED
from mer_calibration.graph.dialects import DIALECTS
from table_rows import head, row

Json = dict[str, Any]


def format_simulated(data: Json) -> str:
    """How often each kind of engine passes, by this rule and by the one before."""
    lines = head("engine", "should pass", *(f"`{f}`, now" for f in SHIPPED), "all, rule before")
    rows = data.get("simulated", [])
    for name in dict.fromkeys(one["engine"] for one in rows):
        kind = {one["fusion"]: one for one in rows if one["engine"] == name}
        passed = [f"{100 * kind[f]['passed'] / kind[f]['draws']:.1f} %" for f in SHIPPED]
        draws = sum(one["draws"] for one in kind.values())
        before = 100 * sum(one["passed_before"] for one in kind.values()) / draws
        right = "yes" if kind[SHIPPED[0]]["right"] else "no"
        lines.append(row(name, right, *passed, f"{before:.1f} %"))
    return "\n".join(lines)


def format_seeds(data: Json) -> str:
    """Draws that pass, and the agreement over them."""
    lines = head(
        "fusion", "dialect", "draws that pass", "same answer, both", "voice alone", "face alone"
    )
    rows = data.get("seeds", [])
    for fusion in SHIPPED:
        for dialect in DIALECTS:
            some = [r for r in rows if (r["fusion"], r["dialect"]) == (fusion, dialect)]
            if not some:
                continue
            passed = sum(not one["refused"] for one in some)
            cells = []
            for shown in ("both", "audio", "video"):
                values = [one["agreement"][shown] for one in some]
                cells.append(f"{min(values):.1f} to {max(values):.1f} %")
            lines.append(row(f"`{fusion}`", f"`{dialect}`", f"{passed} of {len(some)}", *cells))
    return "\n".join(lines)
