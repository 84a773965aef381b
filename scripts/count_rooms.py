"""Count the rooms of each package, and the arrows between them.

    python scripts/count_rooms.py [--root CHECKOUT]

A room is what lies at the top of a package: a module, or a folder with all that is in it. An arrow
is drawn where a module of one room imports one of another. Lines are those of the Python files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import grimp

#: By folder of the checkout.
PACKAGES = {
    "mer": "mer",
    "calibration": "mer_calibration",
    "export": "mer_export",
    "runtime": "mer_runtime",
    "benchmarks": "mer_bench",
}


def count_rooms(package: str) -> tuple[int, int]:
    """Rooms and arrows of a package that can be imported."""
    graph = grimp.build_graph(package, cache_dir=None)
    rooms = graph.find_children(package)
    arrows = sum(
        graph.direct_import_exists(importer=one, imported=other, as_packages=True)
        for one in rooms
        for other in rooms
        if one != other
    )
    return len(rooms), arrows


def count_lines(folder: Path) -> int:
    """Lines of the Python files under a folder."""
    return sum(len(file.read_text("utf-8").splitlines()) for file in folder.rglob("*.py"))


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True),
    default=Path(__file__).resolve().parents[1],
    help="Another checkout than this one.",
)
def main(root: Path) -> None:
    """Print rooms, arrows and lines of each package, and the lines of the tests."""
    root = root.resolve()
    there = {f: p for f, p in PACKAGES.items() if (root / f / p / "__init__.py").is_file()}
    sys.path[:0] = [str(root / folder) for folder in there]
    for folder, package in there.items():
        rooms, arrows = count_rooms(package)
        lines = count_lines(root / folder)
        click.echo(f"{package:16}{rooms:4} rooms {arrows:4} arrows {lines:6} lines in {folder}/")
    for folder in ("scripts", "tests"):
        click.echo(f"{folder:16}{'':22}{count_lines(root / folder):6} lines")


if __name__ == "__main__":
    main()
