"""The timer behind README's tables: every contender in its own process, in turns.

    make bench          # or: python benchmarks/bench.py --threads 2 --rounds 40

Prepares bundles and rivals in cache/bench (minutes the first time), lets each contender run once a
round so that a machine's drift hits all alike, and writes medians with 95 % bootstrap intervals to
benchmarks/results, a file for each kind of processor, and from there to README and the docs.
Close other programs first: the load average at the start is written down too.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from goals import COMPACT, RATIOS, Ratio
from mer.weights import shipped_checkpoint
from mer_bench import (
    Contender,
    bind_children,
    choose_cores,
    clip_seconds,
    describe_machine,
    find_interval,
    find_ratio,
)
from mer_export.proof.golden import sample_clip
from mer_runtime.console import Command
from mer_runtime.engines.processor import find_kind, read_instructions
from mer_runtime.files import write_file
from mer_runtime.turns import take_turns
from rivals import prepare_rivals
from table import BUNDLES, list_rows, name_kind, write_tables

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: What is timed, in the order in which it takes turns, and what for.
WINDOWS = (
    "pytorch",
    "pytorch-compiled",
    "untouched-onnx-fp32",
    "untouched-onnx-static",
    "untouched-openvino-f32",
    "untouched-openvino-bf16",
    "untouched-openvino-nncf",
    "onnx-fp32",
    "onnx-int8",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
    "compact-onnx-int8",
    "compact-openvino-int8",
)
MFCCS = ("mfcc-ours", "mfcc-librosa")
#: Rounds that aren't counted.
WARM_UP = 3


@contextmanager
def open_contenders(
    names: Sequence[str], cores: Sequence[int], paths: dict[str, Path]
) -> Iterator[list[Contender]]:
    """Worker processes, loaded one after the other, that end with the block."""
    # torch.compile would take what it made for another kind of processor.
    compiled = paths["folder"] / f"compiled-{find_kind(read_instructions())}"
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(compiled.resolve())}
    threads = len(cores)
    options = [word for option, path in paths.items() for word in (f"--{option}", path)]
    with ExitStack() as stack:
        opened = []
        for name in names:
            command = [sys.executable, HERE / "contenders.py", name, "--threads", threads, *options]
            contender = Contender(name, command, threads=threads, cores=cores, variables=variables)
            opened.append(stack.enter_context(contender))
        yield opened


def time_rounds(
    contenders: Sequence[Contender], tasks: Sequence[tuple[str, str]], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of every counted round by ``contender/task``."""
    by_name = {contender.name: contender for contender in contenders}
    runs = {f"{name}/{task}": partial(by_name[name].ask, "time", task) for name, task in tasks}
    return take_turns(runs, rounds, warm_up=WARM_UP)


def time_starts(bundle: Path, clip: Path, cores: Sequence[int], runs: int) -> list[float]:
    """Milliseconds from a process's start to its answer on a clip, files already in memory."""
    command = [Path(sys.executable).with_name("mer-run"), bundle, clip]

    def start() -> float:
        began = time.perf_counter()
        with bind_children(cores):
            subprocess.run(command, check=True, capture_output=True)
        return 1e3 * (time.perf_counter() - began)

    return take_turns({"start": start}, runs, warm_up=1)["start"]


def measure(
    names: Sequence[str], threads: int, rounds: int, paths: dict[str, Path]
) -> dict[str, Any]:
    """All tasks with ``threads`` threads on as many cores, JSON-ready."""
    cores = choose_cores(threads)
    with open_contenders([*names, *MFCCS], cores, paths) as contenders:
        check_answers(contenders)
        windows = [(name, "window") for name in names]
        extras = [(name, task) for name in BUNDLES for task in ("hop", "clip")]
        extras += [(name, "mfcc") for name in MFCCS]
        times = time_rounds(contenders, [*windows, *extras], rounds)
    starts = time_starts(paths["folder"] / "onnx-int8", paths["clip"], cores, max(3, rounds // 4))
    times["onnx-int8/start"] = starts
    return {
        "threads": threads,
        "cores": cores,
        "rounds": rounds,
        **summarise_times(times, RATIOS),
    }


def summarise_times(
    times: Mapping[str, Sequence[float]], ratios: Iterable[Ratio]
) -> dict[str, dict[str, Any]]:
    """``milliseconds`` by ``contender/task`` and those ``ratios`` whose sides were timed."""
    return {
        "milliseconds": {name: find_interval(values).to_dict() for name, values in times.items()},
        "ratios": {
            ratio.name: find_ratio(times[ratio.slow], times[ratio.fast]).to_dict()
            for ratio in ratios
            if ratio.slow in times and ratio.fast in times
        },
    }


def check_answers(contenders: Sequence[Contender]) -> None:
    """A fast wrong answer doesn't count: every contender names PyTorch's label.

    ``ia-compact`` is another model, and may answer otherwise.
    """
    same = [one for one in contenders if not one.name.startswith(COMPACT)]
    logits = {one.name: one.facts["logits"] for one in same}
    labels = {name: int(np.argmax(found)) for name, found in logits.items() if found is not None}
    for name, label in labels.items():
        if label != labels["pytorch"]:
            click.echo(f"note: {name} names another emotion than PyTorch on the clip", err=True)


def write_result(result: dict[str, Any], prefix: str = "") -> Path:
    """Keep a run in benchmarks/results, named after its machine and what that multiplies by."""
    machine = result["machine"]
    slug = re.sub(r"[^a-z0-9]+", "-", machine["cpu"].lower()).strip("-")
    name = f"{prefix}{name_kind(result)}-{slug}-{machine['cores']}-cores.json"
    path = HERE / "results" / name
    path.parent.mkdir(exist_ok=True)
    write_file(path, json.dumps(result, indent=1) + "\n")
    return path


def has_bf16() -> bool:
    """Whether OpenVINO multiplies bfloat16 here; else it would take float32 in its place."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def describe_clip(clip: Path) -> dict[str, Any]:
    """Name and length in seconds, JSON-ready."""
    return {"name": clip.name, "seconds": round(clip_seconds(clip), 3)}


@click.command(cls=Command)
@click.option("--threads", "counts", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--rounds", default=30, show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="By default the shipped one.")
@click.option("--ranges", type=click.Path(path_type=Path), help="By default the checkpoint's own.")
@click.option("--clip", type=click.Path(path_type=Path), help="By default the sample clip.")
@click.option("--cache", default=ROOT / "cache" / "bench", type=click.Path(path_type=Path))
@click.option("--nncf/--no-nncf", default=True, help="NNCF needs an environment of its own.")
@click.option(
    "--prepare/--no-prepare", default=True, help="Or time what an earlier run left in the cache."
)
@click.option(
    "--readme/--no-readme", default=True, help="Rewrite the tables of README and the docs."
)
def main(
    counts: tuple[int, ...],
    rounds: int,
    checkpoint: Path | None,
    ranges: Path | None,
    clip: Path | None,
    cache: Path,
    nncf: bool,
    prepare: bool,
    readme: bool,
) -> None:
    """Time every contender in turns; write benchmarks/results and the tables made from them."""
    choose_cores(max(counts))
    machine = describe_machine()
    checkpoint, clip = checkpoint or shipped_checkpoint(), clip or sample_clip()
    if prepare:
        prepare_rivals(checkpoint, cache, ranges=ranges, nncf=nncf)
    paths = {"folder": cache, "checkpoint": checkpoint, "clip": clip}
    left_out = (*(() if nncf else ("nncf",)), *(() if has_bf16() else ("bf16",)))
    names = [name for name in WINDOWS if not name.endswith(left_out)]
    runs = [measure(names, threads, rounds, paths) for threads in sorted(counts)]
    result = {
        "date": date.today().isoformat(),
        "machine": machine,
        "clip": describe_clip(clip),
        "runs": runs,
    }
    path = write_result(result)
    for row in list_rows([(run, result) for run in runs]):
        click.echo(" | ".join([row.title, *row.cells, *row.goals[0]]))
    click.echo(f"written to {path.relative_to(ROOT)}")
    if readme:
        write_tables(path)


if __name__ == "__main__":
    main()
