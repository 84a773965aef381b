"""The table of docs/reference/benchmarks.md about many clips, from the JSON of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from table import ROOT, render_factor, render_row, replace_block

DOCUMENT = ROOT / "docs" / "reference" / "benchmarks.md"
#: What stands between these is written by ``write_docs`` alone.
BLOCK = re.compile(r"<!-- batch: (?P<file>\S+) -->\n.*?<!-- /batch -->", re.DOTALL)

#: Ways to answer an archive, and what the table calls them, where a result has no ``titles``.
TITLES = {
    "jobs": "`mer-run BUNDLE FOLDER --jobs N`",
    "ray": "`mer-run BUNDLE FOLDER --ray local --jobs N`, from its first answer on",
}


def render_table(result: dict[str, Any]) -> str:
    """Clips a second in Markdown, with the facts of the machine."""
    machine, rates = result["machine"], result["clips_per_second"]
    heads = [f"{n} worker{'s' * (n > 1)}" for n in result["workers"]]
    first, *others = result["workers"]
    gains = [f"{n} against {first}" for n in others]
    cells = ["clips a second", *heads, *gains]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load'][0]} at the start,",
        f"{result['date']}; {result['clips']} clips, a thread a worker. Medians of",
        f"{result['rounds']} rounds in turns, with 95 % bootstrap intervals.",
        "",
        render_row(cells),
        render_row(["---"] * len(cells)),
    ]
    for name, title in (TITLES | result.get("titles", {})).items():
        shown = [_render_rate(rates[f"{name}-{n}"]) for n in result["workers"]]
        ratios = [render_factor(result["ratios"][f"{name}-{n}"]) for n in others]
        lines.append(render_row([title, *shown, *ratios]))
    return "\n".join(lines) + "\n"


def render_block(file: str) -> str:
    """What the document holds from marker to marker for one result, named from the root."""
    result = json.loads((ROOT / file).read_text())
    return f"<!-- batch: {file} -->\n{render_table(result)}<!-- /batch -->"


def write_docs(path: Path) -> None:
    """Put the table of ``path``, a result, between the document's markers."""
    replace_block(DOCUMENT, BLOCK, render_block(path.relative_to(ROOT).as_posix()))


def _render_rate(found: dict[str, float]) -> str:
    return f"{found['median']:.1f} ({found['low']:.1f} to {found['high']:.1f})"
