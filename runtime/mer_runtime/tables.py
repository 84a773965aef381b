"""Tables of figures in a file: Markdown for a page, CSV for a program, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mer_runtime.errors import OutputError
from mer_runtime.files import write_file

SUFFIXES = (".md", ".csv", ".tex")
#: What LaTeX reads otherwise.
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A number with its interval, if it has one, and how many digits follow its point."""

    value: float
    interval: tuple[float, float] | None = None
    digits: int = 2
    signed: bool = False

    def format(self, between: str = " to ") -> str:
        """``75.83 (70.0 to 80.8)``; the bounds have a digit less, but one at least."""
        sign = "+" if self.signed else ""
        text = f"{self.value:{sign}.{self.digits}f}"
        if self.interval is None:
            return text
        digits = max(1, self.digits - 1)
        return f"{text} ({between.join(f'{bound:{sign}.{digits}f}' for bound in self.interval)})"


Cell = Figure | str | int | None


@dataclass(frozen=True)
class Table:
    """Rows with the same columns, by heading. ``note`` says what the figures are."""

    title: str
    rows: Sequence[Mapping[str, Cell]]
    note: str = ""


def check_table(path: Path) -> None:
    """See that a file is one that ``write_tables`` writes.

    Raises:
        OutputError: its name says otherwise.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(path, f"a table's file ends with {', '.join(SUFFIXES)}")


def write_tables(path: Path, tables: Sequence[Table]) -> None:
    """Write tables of the same rows: one after the other, or side by side in CSV.

    In CSV a figure has no rounding, and its interval is in two columns, ``low`` and ``high``.

    Raises:
        OutputError: ``path`` has another suffix than ``SUFFIXES``, or can't be written.
    """
    check_table(path)
    make = {".md": to_markdown, ".csv": to_csv, ".tex": to_latex}[path.suffix.lower()]
    write_file(path, make(tables).encode())


def to_markdown(tables: Sequence[Table]) -> str:
    """Each with its title in bold and its note below."""
    parts = []
    for table in tables:
        heads = list(table.rows[0])
        lines = [heads, ["---"] * len(heads)]
        lines += [[_format(row[head]).replace("|", "\\|") for head in heads] for row in table.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"**{table.title}**", body, table.note]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(tables: Sequence[Table]) -> str:
    """Each a ``tabular`` that needs no package, with title and note as a caption's text."""
    parts = []
    for table in tables:
        heads = list(table.rows[0])
        figures = [isinstance(table.rows[0][head], (Figure, int)) for head in heads]
        lines = [f"% {table.title}. {table.note}".rstrip(". ") + "."]
        lines += [f"\\begin{{tabular}}{{{''.join('r' if one else 'l' for one in figures)}}}"]
        lines += ["\\hline", f"{' & '.join(map(_escape, heads))} \\\\", "\\hline"]
        for row in table.rows:
            cells = (_escape(_format(row[head], " -- ")).replace(" -- ", "--") for head in heads)
            lines.append(f"{' & '.join(cells)} \\\\")
        parts.append("\n".join([*lines, "\\hline", "\\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """One row for each row; a column that several tables have is written once."""
    rows: list[dict[str, object]] = [{} for _ in tables[0].rows]
    for table in tables:
        with_interval = {
            head
            for row in table.rows
            for head, cell in row.items()
            if isinstance(cell, Figure) and cell.interval is not None
        }
        for made, row in zip(rows, table.rows, strict=True):
            for head, cell in row.items():
                made[head] = cell.value if isinstance(cell, Figure) else cell
                if head in with_interval:
                    bounds = cell.interval if isinstance(cell, Figure) else None
                    made[f"{head} low"], made[f"{head} high"] = bounds or (None, None)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _format(cell: Cell, between: str = " to ") -> str:
    if cell is None:
        return "-"
    return cell.format(between) if isinstance(cell, Figure) else str(cell)


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
