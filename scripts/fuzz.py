"""Feed hostile inputs to everything that takes any, and keep the counts: ``make fuzz``.

    python scripts/fuzz.py                               # 20 000 inputs, docs/reliability.json
    python scripts/fuzz.py --only graphs                 # one subject's share of them, also kept
    python scripts/fuzz.py --only graphs --inputs 500    # nothing is kept

Each subject is fed in a process of its own (``fuzzing``), and its counts are kept as soon as it
has ended. Exits with 1 where one failed, after all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

import fuzz_bundles
import fuzz_doors
import fuzz_files
import fuzz_media
from fuzzing import Subject, run_subject
from make_tables import write_all_tables
from mer_runtime.documents import read_json
from mer_runtime.files import write_file
from mer_runtime.store import CACHE_VARIABLE

DATA = Path(__file__).resolve().parents[1] / "docs" / "reliability.json"
#: The key of the counts there.
KEY = "fuzz"
#: Of all subjects together.
INPUTS = 20_000
SUBJECTS: dict[str, Subject] = {
    **fuzz_bundles.SUBJECTS,
    **fuzz_files.SUBJECTS,
    **fuzz_media.SUBJECTS,
    **fuzz_doors.SUBJECTS,
}


@click.command()
@click.option(
    "--inputs",
    type=click.IntRange(min=1),
    help=f"Share out so many, and keep no counts [default: each subject's share of {INPUTS}].",
)
@click.option("--only", type=click.Choice(list(SUBJECTS)), multiple=True, help="Subjects.")
@click.option("--seed", default=0, show_default=True)
@click.option("--inside", type=click.Path(path_type=Path), hidden=True, help="Be the process.")
def main(inputs: int | None, only: tuple[str, ...], seed: int, inside: Path | None) -> None:
    """Fuzz everything, or some of it; all inputs are shared out among the subjects."""
    if inside is not None:
        outcome = run_subject(SUBJECTS[only[0]], inputs or INPUTS, seed, inside)
        click.echo(json.dumps(dataclasses.asdict(outcome)))
        sys.stdout.flush()
        os._exit(bool(outcome.fault))  # threads of a page that a subject serves don't hold it up
    chosen = {name: SUBJECTS[name] for name in only or SUBJECTS}
    shares = sum(one.share for one in (chosen if inputs else SUBJECTS).values())
    rows = {}
    for name, one in chosen.items():
        rows[name] = row = feed(name, -(-(inputs or INPUTS) * one.share // shares), seed)
        if inputs is None:
            keep({name: {"seed": seed, **row}})
        told = {key: value for key, value in row.items() if key != "fault"}
        click.echo(f"{name}: {told}\n{row['fault']}".rstrip(), err=True)
    total = sum(row["inputs"] for row in rows.values())
    faults = [name for name, row in rows.items() if row["fault"]]
    click.echo(f"{total} inputs, {len(faults)} subjects with a fault")
    if faults:
        raise SystemExit(1)


def feed(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """A subject's counts, from a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mer-fuzz-") as folder:
        variables = {
            "HYPOTHESIS_STORAGE_DIRECTORY": folder,
            "TMPDIR": folder,
            "HOME": folder,
            CACHE_VARIABLE: f"{folder}/kept",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MER_FACE_DETECTOR": "",
        }
        command = [sys.executable, __file__, "--only", name, "--inside", folder]
        begun = time.monotonic()
        done = subprocess.run(
            [*command, "--inputs", str(inputs), "--seed", str(seed)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    try:
        row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        told = f"it ended with {done.returncode}"
        row = {"inputs": 0, "fault": told, "seconds": round(time.monotonic() - begun, 1)}
        click.echo(done.stderr[-3000:], err=True)
    return row


def keep(rows: dict[str, Any]) -> None:
    """Put subjects' counts in the place of their former ones, and into the table."""
    kept = read_json(DATA) if DATA.is_file() else {}
    found = {**kept.get(KEY, {}), **rows}
    counts = {name: found[name] for name in SUBJECTS if name in found}
    write_file(DATA, json.dumps({**kept, KEY: counts}, indent=1) + "\n")
    write_all_tables()


if __name__ == "__main__":
    main()
