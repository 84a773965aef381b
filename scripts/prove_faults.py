"""Prove that commands survive being killed, and what a machine may lack.

    python scripts/prove_faults.py FOLDER [--kills 50] [--only NAME] [--seconds N]

Each command of ``fault_subjects`` is killed at random moments by SIGKILL, SIGTERM and SIGHUP in
turns. Then no process of its may be left, and nothing may look whole that isn't; every few kills
the same command must end well, going on where that is possible. Then each runs under every
condition of ``CONDITIONS``: it ends well or with one line, and never with a traceback.

FOLDER keeps the inputs, which take minutes to make. Counts go to docs/reliability.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fault_conditions import CONDITIONS, Condition
from fault_subjects import Subject, find_leftovers, list_subjects
from make_tables import write_all_tables
from mer_runtime.console import Command
from mer_runtime.files import locked, write_file

DATA = Path(__file__).resolve().parents[1] / "docs" / "reliability.json"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP)
#: Kills between two runs that must end well.
STREAK = 5
#: Marks the processes that descend from one that was started here.
MARK = "MER_EDGE_FAULT"
#: Seconds that a run, and the end of killed process's children, may take.
LIMIT, FAREWELL = 1800.0, 60.0
#: Characters of a traceback that are kept.
LONGEST = 1500

Json = dict[str, Any]


def run(words: Sequence[str], **options: Any) -> tuple[int, str, float]:
    """A command to its end: exit code, standard error, seconds."""
    began = time.monotonic()
    # A wrapper of a condition may stand before it.
    done = subprocess.run(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LIMIT, **options
    )
    return done.returncode, done.stderr.decode(errors="replace"), time.monotonic() - began


def kill_at(words: Sequence[str], seconds: float, number: signal.Signals) -> list[str]:
    """Kill a command after a while; what was wrong with how it ended."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, MARK: mark},
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=FAREWELL)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return [f"{number.name} did not end it"]
    text = errors.decode(errors="replace")
    found = [f"{number.name}: a traceback: {text[-LONGEST:]}"] if "Traceback" in text else []
    limit = time.monotonic() + FAREWELL
    while list_marked(mark):
        if time.monotonic() > limit:
            left = list_marked(mark)
            for one in left:
                os.kill(one, signal.SIGKILL)
            return [*found, f"{len(left)} processes were left by {number.name}"]
        time.sleep(0.05)
    return found


def heed_signals() -> None:
    """Under nohup and in a shell's background jobs some are ignored, and children inherit that."""
    for number in {signal.SIGINT, *SIGNALS} - {signal.SIGKILL}:
        signal.signal(number, signal.SIG_DFL)


def list_marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (
                folder / "environ"
            ).read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it ended, or is somebody else's
            continue
    return found


def prove_kills(
    subject: Subject, folder: Path, kills: int, until: float, draw: random.Random
) -> Json:
    """Kill a command again and again, and let it end well between; what came of it."""
    out = make_place(subject, folder)
    code, errors, seconds = run(subject.words(out, again=False))
    problems = [] if code == 0 else [f"undisturbed: {errors.strip()[-300:]}"]
    problems += judge(subject.done, out, "undisturbed")
    window = min(seconds, subject.within or seconds)
    counts: Counter[str] = Counter()
    finished, out = 1, make_place(subject, folder)
    while not problems and sum(counts.values()) < kills and time.monotonic() < until:
        number = SIGNALS[sum(counts.values()) % len(SIGNALS)]
        words = subject.words(out, again=bool(counts))
        when = draw.uniform(0, window)
        problems += [f"{when:.2f} s: {one}" for one in kill_at(words, when, number)]
        problems += judge(subject.check, out, f"{number.name} at {when:.2f} s")
        counts[number.name] += 1
        streak = kills if subject.within else STREAK
        if sum(counts.values()) % streak == 0 or sum(counts.values()) == kills:
            code, errors, _ = run(subject.words(out, again=True))
            if code != 0:
                problems.append(f"the next run: {errors.strip()[-300:]}")
            problems += judge(subject.done, out, "the next run")
            problems += [f"left behind: {path.name}" for path in find_leftovers(out)]
            finished += 1
            out = make_place(subject, folder)
    return {
        "command": subject.name,
        "kills": sum(counts.values()),
        "signals": dict(counts),
        "finished": finished,
        "seconds": round(seconds, 1),
        "problems": problems,
    }


def make_place(subject: Subject, folder: Path) -> Path:
    """A path for an output of which nothing is there yet."""
    out = folder / "out" / subject.name.replace(", ", "-").replace(" ", "-")
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    if subject.name == "record":
        out.mkdir()
    return out


def judge(check: Callable[[Path], object], out: Path, when: str) -> list[str]:
    """What a check finds."""
    try:
        check(out)
    except Exception as error:  # noqa: BLE001 # whatever it is, it is told
        return [f"{when}: {type(error).__name__}: {error}"]
    return []


def prove_condition(subject: Subject, condition: Condition, folder: Path) -> Json | None:
    """Run a command under a condition, then without; None where it can't be made here."""
    out = make_place(subject, folder)
    given = condition.set_up(subject, out)
    if given is None:
        return None
    try:
        code, errors, _ = run(given.words, env={**os.environ, **given.variables}, **given.options)
    finally:
        given.clear()
    problems = ["a traceback"] if "Traceback" in errors else []
    if code not in (0, 1) and not given.may_die:
        problems.append(f"it ended with {code}: {errors.strip()[-300:]}")
    if code == 1 and not any(line.startswith("Error: ") for line in errors.splitlines()):
        problems.append(f"it says no error: {errors.strip()[-300:]}")
    if code != 0 and condition.must_work:
        problems.append(f"it didn't work: {errors.strip()[-300:]}")
    problems += judge(subject.check, given.out, "after it")
    if given.out.exists() and condition.goes_on:
        code, errors, _ = run(subject.words(given.out, again=True))
        if code:
            problems.append(f"the next run: {errors.strip()[-300:]}")
        problems += judge(subject.done, given.out, "the next run")
    return {"command": subject.name, "condition": condition.name, "problems": problems}


def write_counts(kills: Sequence[Json], conditions: Sequence[Json]) -> None:
    """Put rows into docs/reliability.json in the place of those of the same commands."""
    with locked(DATA.with_suffix(".lock"), lambda seconds: None):
        data: Json = json.loads(DATA.read_text("utf-8")) if DATA.is_file() else {}
        faults = data.setdefault("faults", {"kills": [], "conditions": []})
        faults["kills"] = _merge(faults["kills"], kills, ("command",))
        faults["conditions"] = _merge(faults["conditions"], conditions, ("condition", "command"))
        write_file(DATA, json.dumps(data, indent=1) + "\n")
        write_all_tables()


def _merge(old: Sequence[Json], new: Sequence[Json], keys: Sequence[str]) -> list[Json]:
    def name(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[key] for key in keys)

    rows = {name(row): row for row in old} | {name(row): row for row in new}
    return list(rows.values())


@click.command(cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--kills", type=click.IntRange(min=0), default=50, show_default=True)
@click.option("--only", multiple=True, help="A command or a condition; all without.")
@click.option("--seconds", type=float, default=1e9, help="For the kills of each command, at most.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(folder: Path, kills: int, only: tuple[str, ...], seconds: float, seed: int) -> None:
    """Kill every command, run it under every condition, count what held."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    subjects = list_subjects(folder)
    named = {one.name for one in subjects} | {one.name for one in CONDITIONS}
    if unknown := set(only) - named:
        raise click.UsageError(f"no {', '.join(unknown)}: there are {'; '.join(sorted(named))}")
    some_subjects = [one for one in subjects if one.name in only] or subjects
    conditions = [one for one in CONDITIONS if one.name in only] or list(CONDITIONS)
    wrong = False
    for subject in some_subjects:
        if kills:
            row = prove_kills(
                subject, folder, kills, time.monotonic() + seconds, random.Random(seed)
            )
            click.echo(f"{subject.name}: {row['kills']} kills, {row['finished']} runs ended well")
            wrong |= tell(row)
            write_counts([row], [])
        for condition in () if subject.within else conditions:
            found = prove_condition(subject, condition, folder)
            if found is not None:
                wrong |= tell(found)
                write_counts([], [found])
    sys.exit(1 if wrong else 0)


def tell(row: Json) -> bool:
    """Print what is wrong; whether anything is."""
    for problem in row["problems"]:
        click.echo(f"  {row['command']} {row.get('condition', '')}: {problem}", err=True)
    return bool(row["problems"])


if __name__ == "__main__":
    main()
