"""The options of ``mer-bench``: a run on this device, or two runs side by side."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import click

from mer_bench.accuracy import measure_accuracy, require_train
from mer_bench.comparison import compare_runs, find_slower, list_caveats
from mer_bench.contender import (
    BenchError,
    Setting,
    choose_cores,
    name_entries,
)
from mer_bench.machine import describe_machine, describe_state
from mer_bench.measurement import measure
from mer_bench.report import render_report
from mer_bench.result import assemble, read_result
from mer_bench.text import render_comparison, render_result
from mer_runtime import __version__
from mer_runtime.bundle import Bundle, load_bundle
from mer_runtime.console import Command, warn
from mer_runtime.engines import usable_cores
from mer_runtime.errors import OutputError
from mer_runtime.files import write_file
from mer_runtime.inputs.face import find_detector_file

#: What ``--fail-if-slower`` exits with; 1 is an error, 2 a wrong option.
SLOWER = 3
EPILOG = """\b
Examples:
  mer-bench ia
  mer-bench bundles/ia-onnx-fp32 bundles/ia-onnx-int8 --clip me.mp4 --html report.html
  mer-bench ia --reference ia --cache cache/ravdess --json today.json
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
@click.option("--json", "json_out", type=click.Path(path_type=Path), metavar="OUT", help="Results.")
@click.option("--html", "html_out", type=click.Path(path_type=Path), metavar="OUT", help="Report.")
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
        _compare(compare, fail_if_slower, json_out)
        return
    if fail_if_slower is not None:
        raise click.UsageError("--fail-if-slower goes with --compare")
    if not bundles:
        raise click.UsageError("give at least one BUNDLE, or --compare")
    for out in (json_out, html_out):
        if out is not None and not out.absolute().parent.is_dir():
            raise OutputError(out, "there is no such folder")
    result = run_bench(
        bundles,
        reference=reference,
        clip=clip,
        cache=cache,
        threads=threads,
        seconds=seconds,
        face_detector=face_detector,
    )
    click.echo(render_result(result))
    if json_out is not None:
        write_file(json_out, json.dumps(result, indent=1) + "\n")
    if html_out is not None:
        write_file(html_out, render_report(result))


def run_bench(
    bundles: tuple[Path, ...],
    *,
    clip: Path | None = None,
    reference: str | None = None,
    cache: Path | None = None,
    threads: int | None = None,
    seconds: float = 10.0,
    face_detector: Path | None = None,
) -> dict[str, Any]:
    """Measure bundles on this device; gives what ``--json`` writes (see ``bench.result``).

    Raises:
        BundleError: a bundle can't be loaded.
        BenchError: a contender, the clip or the cache can't be used.
        MissingExtraError: ``reference`` or ``cache`` needs PyTorch, which isn't installed.
    """
    loaded = [load_bundle(bundle) for bundle in bundles]
    if reference is not None:
        require_train("the reference")
    if cache is not None:
        require_train("accuracy on a cache")
    entries = name_entries(
        [(given, one.path) for given, one in zip(bundles, loaded, strict=True)], reference
    )
    threads = threads or usable_cores()
    detector = face_detector or find_detector_file() or _own_detector(loaded)
    if detector is None:
        warn("faces are found by the Haar cascade: no bundle carries YuNet, and none was given")
    machine = {**describe_machine(), "before": describe_state()}
    setting = Setting(choose_clip(clip), threads, choose_cores(threads), detector)
    times = measure(entries, setting, seconds, lambda step: click.echo(f"... {step}", err=True))
    machine["after"] = describe_state()
    accuracy = None
    if cache is not None:
        click.echo("... accuracy", err=True)
        accuracy = measure_accuracy(entries, cache, "test")
    return assemble(entries, times, setting, seconds, machine, accuracy)


def choose_clip(clip: Path | None) -> Path:
    """The clip that was given, else the sample that comes with the exporter, absolute.

    Raises:
        BenchError: there is none.
    """
    if clip is None:
        # Found without importing the exporter, which needs PyTorch.
        exporter = importlib.util.find_spec("mer_export")
        if exporter is not None and exporter.origin is not None:
            clip = Path(exporter.origin).parent / "samples" / "portrait.mp4"
    if clip is None or not clip.is_file():
        raise BenchError(f"there is no clip {clip or ''}".rstrip() + ": name one with --clip")
    return clip.resolve()


def _own_detector(bundles: list[Bundle]) -> Path | None:
    return next((one.face_detector for one in bundles if one.face_detector), None)


def _compare(files: tuple[Path, Path], percent: float | None, out: Path | None) -> None:
    before, after = (read_result(file) for file in files)
    differences = compare_runs(before, after)
    for caveat in list_caveats(before, after):
        warn(caveat)
    click.echo(render_comparison(differences))
    if out is not None:
        found = [one.to_dict() for one in differences]
        write_file(out, json.dumps({"differences": found}, indent=1) + "\n")
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
