"""Write every table that measurements are shown in, from their JSON files under docs.

    python scripts/make_tables.py            # or --check, which only says which would change

A table stands between ``<!-- table: NAME -->`` and ``<!-- end: NAME -->`` in the README, in a page
under docs or in the model card. The scripts that measure call this one when they are done.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from mer_runtime.console import Command
from mer_runtime.errors import MerError
from mer_runtime.files import write_file
from tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
MODEL_CARD = Path("weights/mer_weights/MODEL_CARD.md")
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end: \2 -->)", re.DOTALL)


def list_documents(root: Path = ROOT) -> list[Path]:
    """The files that may hold a table."""
    pages = sorted((root / "docs").rglob("*.md"))
    return [*filter(Path.is_file, (root / "README.md", root / MODEL_CARD)), *pages]


#: Names the results of ``make bench`` that a table shows.
BENCH = re.compile(r"<!-- bench: (.+?) -->")


class TableError(MerError, RuntimeError):
    """A table can't be made from what lies under docs."""


def write_all_tables(root: Path = ROOT, *, check: bool = False) -> list[Path]:
    """Bring the README's and the docs' tables up to date; one never measured stays empty.

    Returns:
        The files that changed or, with ``check``, that would.

    Raises:
        TableError: the JSON file of a table that shows figures is missing or damaged, or nothing
            makes such a table.
    """
    changed = []
    for document in list_documents(root):
        text = document.read_text("utf-8")
        for file in " ".join(BENCH.findall(text)).split():  # benchmarks/table.py makes those
            if not (root / file).is_file():
                raise TableError(f"{root / file} is missing, which {document} has a table of")
        made = BLOCK.sub(lambda block: _fill(block, root / "docs"), text)
        if made != text:
            changed.append(document)
            if not check:
                write_file(document, made.encode())
    return changed


def _fill(block: re.Match[str], docs: Path) -> str:
    begin, name, before, end = block.groups()
    if name not in TABLES:
        raise TableError(f"nothing makes the table {name}: the tables are {', '.join(TABLES)}")
    source, make = TABLES[name]
    file = docs / source
    try:
        table = make(json.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        if not before.strip():  # not measured yet
            return begin + before + end
        raise TableError(f"{file} is missing, which the table {name} is made from") from None
    except (ValueError, LookupError, TypeError) as error:
        raise TableError(f"the table {name} can't be made from {file}: {error!r}") from error
    return f"{begin}\n{table}\n\n{end}"


@click.command(cls=Command)
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where a table is stale.")
def main(check: bool) -> None:
    """Write the tables of README.md and of the pages under docs from docs/*.json."""
    changed = write_all_tables(check=check)
    for document in changed:
        click.echo(f"{'stale' if check else 'written'}: {document.relative_to(ROOT)}")
    if check and changed:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
