"""How many clips of an archive are answered a second, with one worker and with two.

    python benchmarks/batch.py archive/

``mer-run --jobs`` and ``mer-run --ray local`` take turns, each a fresh process a round, a thread
a worker. Ray's time begins with its first answer, when its cluster stands.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import click

from batch_table import write_docs
from bench import ROOT, write_result
from mer_bench import choose_cores, describe_machine, find_interval, find_ratio
from mer_runtime.console import Command
from mer_runtime.inputs.listing import list_media
from mer_runtime.turns import take_turns

PROGRAM = Path(sys.executable).with_name("mer-run")


def time_jobs(bundle: str, archive: Path, workers: int) -> float:
    """Clips a second of ``mer-run --jobs``, its start in it."""
    start = time.perf_counter()
    said = _run(PROGRAM, bundle, archive, "--jobs", workers, "--threads", 1, "--json")
    return len(said.splitlines()) / (time.perf_counter() - start)


def time_ray(bundle: str, archive: Path, workers: int) -> float:
    """Clips a second of ``mer-run --ray``, from its first answer on."""
    options = ["--ray", "local", "--jobs", workers, "--threads", 1, "--json"]
    words = [str(word) for word in (PROGRAM, bundle, archive, *options)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        came = [time.perf_counter() for _ in process.stdout]
    if process.returncode or len(came) < 2:
        raise click.ClickException(f"mer-run --ray ended with {process.returncode}")
    return (len(came) - 1) / (came[-1] - came[0])


#: By the table's names.
WAYS: dict[str, Callable[[str, Path, int], float]] = {"jobs": time_jobs, "ray": time_ray}


@click.command(cls=Command)
@click.argument("archive", type=click.Path(path_type=Path, exists=True))
@click.option("--bundle", default="ia-int8", show_default=True)
@click.option("--workers", "counts", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--docs/--no-docs", default=True, help="Rewrite the docs' table.")
def main(archive: Path, bundle: str, counts: tuple[int, ...], rounds: int, docs: bool) -> None:
    """Time ARCHIVE, a folder of clips; write benchmarks/results and the docs' table."""
    choose_cores(max(counts))
    machine = describe_machine()

    def run(way: str, workers: int) -> float:
        click.echo(f"{way}, {workers} workers", err=True)
        return WAYS[way](bundle, archive, workers)

    runs = {f"{way}-{n}": partial(run, way, n) for way in WAYS for n in counts}
    rates = take_turns(runs, rounds)
    path = write_result(
        {
            "date": date.today().isoformat(),
            "machine": machine,
            "bundle": bundle,
            "clips": len(list_media(archive).clips),
            "rounds": rounds,
            "workers": list(counts),
            "clips_per_second": {name: find_interval(v).to_dict() for name, v in rates.items()},
            "ratios": {
                f"{way}-{n}": find_ratio(rates[f"{way}-{n}"], rates[f"{way}-{counts[0]}"]).to_dict()
                for way in WAYS
                for n in counts[1:]
            },
        },
        "batch-",
    )
    if docs:
        write_docs(path)
    click.echo(f"written to {path.relative_to(ROOT)}")


def _run(*command: object) -> str:
    """A program's standard output.

    Raises:
        click.ClickException: it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()  # --json tells errors there
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise click.ClickException(f"{Path(words[0]).name}: {reason}")
    return done.stdout


if __name__ == "__main__":
    main()
