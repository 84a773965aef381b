"""The options of ``mer-bench``: a run on this device, or two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mer_runtime.interrupts import hold_interrupts

hold_interrupts()  # before what takes long to load

# ruff: noqa: E402
from mer_bench.advice import list_cautions
from mer_bench.comparison import compare_runs, find_slower, list_caveats
from mer_bench.extras import require
from mer_bench.report import render_report
from mer_bench.result import read_result
from mer_bench.run import run_bench
from mer_bench.tables import list_points, tabulate_result
from mer_bench.text import render_comparison, render_result
from mer_runtime import options
from mer_runtime.bundle import SHIPPED_CHECKPOINTS
from mer_runtime.console import Command, say, warn
from mer_runtime.files import check_output, is_there, write_file
from mer_runtime.options import Results
from mer_runtime.proof.choice import EngineChoice
from mer_runtime.tables import check_table, write_tables

#: What ``--fail-if-slower`` exits with; 1 is an error, 2 a wrong option.
SLOWER = 3
EPILOG = """\b
Examples:
  mer-bench ia-int8
  mer-bench bundles/ia-onnx-fp32 bundles/ia-onnx-int8 --clip me.mp4 --html report.html
  mer-bench ia ia-int8 --cache cache/ravdess --json-out today.json
  mer-bench ia ia-int8 --cache cache/ravdess --table paper.tex --plot paper.svg
  mer-bench --compare yesterday.json today.json --fail-if-slower 10%
"""


@click.command("mer-bench", cls=Command, epilog=EPILOG)
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option(
    "--reference",
    metavar="CHECKPOINT",
    help="Time the float model in PyTorch, too: a file, or one that ships (extra train).",
)
@click.option(
    "--clip",
    type=click.Path(path_type=Path),
    help="What is answered over and over [default: the sample clip].",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Measure accuracy on the test split of a corpus by mer-prepare (extra train).",
)
@options.threads
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Measure each contender so long in each mode.",
)
@options.face_detector(
    "YuNet's ONNX file for all, or haar",
    "$MER_FACE_DETECTOR, a bundle's, else the YuNet that ships",
)
@options.backend(
    "Engine of all bundles [default: each one's own]; auto takes the fastest whose answers are "
    "right."
)
@options.results
@click.option(
    "--html",
    "html_out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a report (extra report).",
)
@options.table(
    "Write sizes and times as tables; with --cache accuracy, each bundle paired with the "
    "checkpoint, and recall by class."
)
@options.plot("Draw accuracy against a window's time; needs --cache (extra report).")
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A.json B.json",
    help="Measure nothing: tell how B differs from A.",
)
@click.option(
    "--fail-if-slower",
    callback=options.reads_measure("%", "a percentage such as 10%", zero=True),
    metavar="PERCENT",
    help="With --compare: exit with 3 where B takes so much longer, beyond noise.",
)
@options.common
def main(
    models: tuple[Path, ...],
    reference: str | None,
    clip: Path | None,
    cache: Path | None,
    threads: int | None,
    seconds: float,
    face_detector: Path | None,
    backend: EngineChoice | None,
    results: Results,
    html_out: Path | None,
    table: Path | None,
    plot: Path | None,
    compare: tuple[Path, Path] | None,
    fail_if_slower: float | None,
) -> None:
    """Time MODELs on this device: bundles, as ia-int8, and one checkpoint, as ia, in PyTorch.

    A MODEL is a folder by mer-export, a checkpoint file, or the name of one that ships. The
    checkpoint is the reference that the bundles are compared with.

    Every contender runs in a process of its own, bound to the same cores, by turns. Nothing that
    was timed is left out; warm-up is told. Close other programs first.

    Exit codes: 0 done; 1 an error; 2 wrong options; 3 slower, with --fail-if-slower.
    """
    if compare is not None:
        if models or reference or cache or table or plot:
            raise click.UsageError(
                "--compare measures nothing: give it two files, no MODEL, --table or --plot"
            )
        _compare(compare, fail_if_slower, results)
        return
    if fail_if_slower is not None:
        raise click.UsageError("--fail-if-slower goes with --compare")
    bundles = tuple(model for model in models if not is_checkpoint(model))
    references = [str(model) for model in models if is_checkpoint(model)]
    references += [reference] if reference is not None else []
    if len(references) > 1:
        raise click.UsageError("give one checkpoint at most")
    if not bundles:
        raise click.UsageError("give at least one BUNDLE, or --compare")
    if plot is not None and cache is None:
        raise click.UsageError("--plot shows accuracy: give it --cache CACHE")
    outputs = [path for path in (html_out, table, plot) if path is not None]
    for i, out in enumerate(outputs):
        sources = (clip, results.out, cache, *outputs[:i])
        check_output(out, *models, *(path for path in sources if path))
    if html_out is not None:
        require("matplotlib", "report", "the report")
    if table is not None:
        check_table(table)
    if plot is not None:
        _check_plot(plot)
    result = run_bench(
        bundles,
        reference=references[0] if references else None,
        clip=clip,
        cache=cache,
        threads=threads,
        seconds=seconds,
        face_detector=face_detector,
        backend=backend,
        tell=lambda step: say(f"... {step}", err=True),
    )
    results.tell(result, render_result(result))
    for caution in list_cautions(result):
        warn(caution)
    if html_out is not None:
        write_file(html_out, render_report(result))
    if table is not None:
        write_tables(table, tabulate_result(result))
    if plot is not None:
        _plot(result, plot)


def is_checkpoint(model: Path) -> bool:
    """Whether a model is a checkpoint: a file, or the name of one that ships."""
    if is_there(model):
        return model.is_file()
    return str(model) in SHIPPED_CHECKPOINTS


def _check_plot(path: Path) -> None:
    require("torch", "train", "accuracy on a cache")
    from mer.evaluate.plots import check_plot

    check_plot(path)


def _plot(result: Mapping[str, Any], path: Path) -> None:
    from mer.evaluate.plots import plot_front

    plot_front(list_points(result), path)


def _compare(files: tuple[Path, Path], percent: float | None, results: Results) -> None:
    before, after = (read_result(file) for file in files)
    differences = compare_runs(before, after)
    for caveat in list_caveats(before, after):
        warn(caveat)
    found = [one.to_dict() for one in differences]
    results.tell({"differences": found}, render_comparison(differences))
    slower = [] if percent is None else find_slower(differences, percent)
    for one in slower:
        low, high = one.ratio.low, one.ratio.high
        say(
            f"Slower: {one.contender} takes {one.ratio.median:.3f} times as long as before "
            f"({low:.3f} to {high:.3f}), more than {percent:g} % beyond noise",
            err=True,
        )
    if slower:
        raise click.exceptions.Exit(SLOWER)
