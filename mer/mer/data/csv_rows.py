"""Tables that users write: CSV with a line of column names, errors by line and column."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mer.errors import CorpusError


@dataclass(frozen=True)
class Line:
    """A row of a table: its line in the file, and its cells by column, without outer spaces."""

    number: int
    cells: dict[str, str]


@dataclass
class Faults:
    """What is wrong with a table's rows, told in one error."""

    table: Path
    found: list[str] = field(default_factory=list)

    def add(self, line: int, column: str, reason: str) -> None:
        """Note a cell."""
        self.found.append(f"{self.table}, line {line}, column {column}: {reason}")

    def check(self) -> None:
        """Raise the first.

        Raises:
            CorpusError: there are any.
        """
        if self.found:
            more = len(self.found) - 1
            raise CorpusError(self.found[0] + (f" (and {more} more faults)" if more else ""))


def read_lines(table: Path, required: Sequence[str]) -> tuple[list[Line], list[str]]:
    """The rows of a table that aren't blank, and its columns' names.

    Names of columns are compared in small letters, with spaces for underscores.

    Raises:
        CorpusError: it can't be read as CSV in UTF-8, lacks a required column, has one twice, has
            no row, or a row has more cells than there are columns.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"{table} can't be read as a CSV file: {reason}") from error
    rows = [(number, row) for number, row in rows if any(cell.strip() for cell in row)]
    columns = [_name(cell) for cell in rows[0][1]] if rows else []
    missing = [name for name in required if name not in columns]
    if missing:
        signs = {";": "semicolons", "\t": "tabs"}
        parted = [name for sign, name in signs.items() if any(sign in one for one in columns)]
        hint = f" (its columns are parted by {parted[0]}: save it with commas)" if parted else ""
        raise CorpusError(
            f"{table} must begin with a line that names its columns, {','.join(required)}{hint}"
        )
    for name in set(columns) - {""}:
        if columns.count(name) > 1:
            raise CorpusError(f"{table} has two columns {name}")
    if len(rows) == 1:
        raise CorpusError(f"{table} names no clip: write a line FILE,LABEL for each")
    lines = []
    for number, row in rows[1:]:
        if len(row) > len(columns):
            raise CorpusError(
                f"{table}, line {number} has {len(row)} cells, and there are {len(columns)} "
                "columns: put quotes around a cell with a comma in it"
            )
        cells = [cell.strip() for cell in row] + [""] * (len(columns) - len(row))
        lines.append(Line(number, dict(zip(columns, cells, strict=True))))
    return lines, columns


def _name(cell: str) -> str:
    return cell.strip().lower().replace("_", " ")
