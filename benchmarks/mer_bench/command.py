"""The options of ``mer-bench``: a run on this device, or two runs side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from mer_bench.comparison import compare_runs, find_slower, list_caveats
from mer_bench.extras import require
from mer_bench.report import render_report
from mer_bench.result import read_result
from mer_bench.run import run_bench
from mer_bench.text import render_comparison, render_result
from mer_runtime import __version__
from mer_runtime.console import Command, warn
from mer_runtime.errors import OutputError
from mer_runtime.files import write_file

#: What ``--fail-if-slower`` exits with; 1 is an error, 2 a wrong option.
SLOWER = 3
EPILOG = """\b
Examples:
  mer-bench ia
  mer-bench bundles/ia-onnx-fp32 bundles/ia-onnx-int8 --clip me.mp4 --html report.html
  mer-bench ia --reference ia --cache cache/ravdess --json-out today.json
  mer-bench --compare yesterday.json today.json --fail-if-slower 10%
"""


def read_percent(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    """``10%`` or ``10`` as a number."""
    if value is None:
        return None
    try:
        found = float(value.removesuffix("%"))
    except ValueError:
        found = -1.0
    if not 0 <= found < math.inf:
        raise click.BadParameter(f"{value} is not a percentage such as 10%", context, parameter)
    return found


@click.command(cls=Command, epilog=EPILOG)
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option(
    "--reference",
    metavar="CHECKPOINT",
    help="Time the float model in PyTorch, too: a file, or ia, it or lt (extra train).",
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
@click.option("--threads", type=click.IntRange(min=1), help="[default: all cores]")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Measure each contender so long in each mode.",
)
@click.option(
    "--face-detector",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YuNet model for all [default: $MER_FACE_DETECTOR, a bundle's, else the Haar cascade].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option(
    "--json-out", type=click.Path(path_type=Path), metavar="FILE", help="Write that JSON."
)
@click.option(
    "--html",
    "html_out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a report (extra report).",
)
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A.json B.json",
    help="Measure nothing: tell how B differs from A.",
)
@click.option(
    "--fail-if-slower",
    callback=read_percent,
    metavar="PERCENT",
    help="With --compare: exit with 3 where B takes so much longer, beyond noise.",
)
@click.version_option(__version__)
def main(
    bundles: tuple[Path, ...],
    reference: str | None,
    clip: Path | None,
    cache: Path | None,
    threads: int | None,
    seconds: float,
    face_detector: Path | None,
    as_json: bool,
    json_out: Path | None,
    html_out: Path | None,
    compare: tuple[Path, Path] | None,
    fail_if_slower: float | None,
) -> None:
    """Time BUNDLEs, folders by mer-export or names of those that ship, on this device.

    Every contender runs in a process of its own, bound to the same cores, by turns. Nothing that
    was timed is left out; warm-up is told. Close other programs first.

    Exit codes: 0 done; 1 an error; 2 wrong options; 3 slower, with --fail-if-slower.
    """
    if compare is not None:
        if bundles or reference or cache:
            raise click.UsageError("--compare measures nothing: give it two files and no BUNDLE")
        _compare(compare, fail_if_slower, as_json, json_out)
        return
    if fail_if_slower is not None:
        raise click.UsageError("--fail-if-slower goes with --compare")
    if not bundles:
        raise click.UsageError("give at least one BUNDLE, or --compare")
    for out in (json_out, html_out):
        if out is not None and not out.absolute().parent.is_dir():
            raise OutputError(out, "there is no such folder")
    if html_out is not None:
        require("matplotlib", "report", "the report")
    result = run_bench(
        bundles,
        reference=reference,
        clip=clip,
        cache=cache,
        threads=threads,
        seconds=seconds,
        face_detector=face_detector,
        tell=lambda step: click.echo(f"... {step}", err=True),
    )
    _tell(result, render_result(result), as_json, json_out)
    if html_out is not None:
        write_file(html_out, render_report(result))


def _tell(found: dict[str, Any], text: str, as_json: bool, out: Path | None) -> None:
    content = json.dumps(found, indent=1)
    click.echo(content if as_json else text)
    if out is not None:
        write_file(out, content + "\n")


def _compare(
    files: tuple[Path, Path], percent: float | None, as_json: bool, out: Path | None
) -> None:
    before, after = (read_result(file) for file in files)
    differences = compare_runs(before, after)
    for caveat in list_caveats(before, after):
        warn(caveat)
    found = {"differences": [one.to_dict() for one in differences]}
    _tell(found, render_comparison(differences), as_json, out)
    slower = [] if percent is None else find_slower(differences, percent)
    for one in slower:
        low, high = one.ratio.low, one.ratio.high
        click.echo(
            f"Slower: {one.contender} takes {one.ratio.median:.3f} times as long as before "
            f"({low:.3f} to {high:.3f}), more than {percent:g} % beyond noise",
            err=True,
        )
    if slower:
        raise click.exceptions.Exit(SLOWER)
