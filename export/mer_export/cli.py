"""``mer-export``: a checkpoint in, a proved bundle out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from mer_runtime.interrupts import hold_interrupts

hold_interrupts()  # before what takes long to load

# ruff: noqa: E402
from mer_runtime import options
from mer_runtime.bundle import Precision
from mer_runtime.console import Command, exit_without
from mer_runtime.documents import read_json
from mer_runtime.errors import SpecError
from mer_runtime.options import Results
from mer_runtime.spec import Spec

try:
    from mer.cli.options import own_models
    from mer.cli.stages import StageBars
    from mer_export.errors import ExportError, OptionError
    from mer_export.exporter import STAGES, export_bundle
    from mer_export.inspection.bundles import inspect_bundle
    from mer_export.options import ExportOptions
    from mer_export.proof.limits import MAX_DROP
    from mer_export.targets import CPUS, TARGETS, host_cpu
    from mer_export.tuning.search import tune
except ModuleNotFoundError as error:  # the script is installed with the base package too
    exit_without(error.name or "torch", "export")

EPILOG = """\b
Examples:
  mer-export --target tensorrt
  mer-export runs/ia/best.safetensors --calibration cache/ravdess
  mer-export runs/ia/best.safetensors --target openvino --precision fp32 --out ia-bundle
  mer-export reference.pth --num-heads 4 --precision fp32 --out reference-bundle
  mer-export --inspect ia-int8
  mer-export --tune --calibration cache/ravdess --max-latency 8ms
"""


#: What goes with --inspect and with --tune; the rest would change nothing there.
ALWAYS = frozenset({"as_json", "json_out", "log_level"})
INSPECTING = ALWAYS | {"inspect"}
TUNING = ALWAYS | {
    "tunes", "checkpoints", "calibration", "max_latency", "max_drop", "target", "precision", "out",
}  # fmt: skip


@click.command("mer-export", cls=Command, epilog=EPILOG)
@click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path), metavar="[CHECKPOINT]...")
@click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    default="onnx",
    show_default=True,
    help="Engine: onnx (ONNX Runtime) and openvino for CPUs, tensorrt for Jetson and GPUs.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="int8",
    show_default=True,
    help="Numbers that it computes with.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="CACHE",
    help="Corpus prepared by mer-prepare: makes int8's ranges on its training actors, and proves "
    "the bundle on its validation actors.",
)
@click.option(
    "--ranges",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Ranges of an earlier calibration (ranges.json of a bundle), instead of a corpus; with "
    "--calibration the corpus proves them.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Draws the calibration's clips; another draw may pass a gate that is missed narrowly "
    "[default: 0].",
)
@click.option(
    "--float-head",
    is_flag=True,
    help="Leave the head of an int8 bundle in float: 2 % slower, and the voice alone is answered "
    "as by the float model.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    metavar="POINTS",
    help="Most prec1 that may be lost on the validation actors, or one clip if that is more "
    f"[default: {MAX_DROP:g}]. With --tune: points less than the best float model's; the fastest "
    "bundle fits.",
)
@click.option(
    "--cpu",
    type=click.Choice(list(CPUS)),
    help=f"What int8 for onnx is made for [default: this machine's, {host_cpu()}].",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Folder to write [default: MODEL-TARGET-PRECISION]; a bundle there is replaced.",
)
@options.face_detector("YuNet's ONNX file to put into the bundle", "$MER_FACE_DETECTOR")
@own_models
@options.labels
@options.num_heads
@click.option(
    "--spec",
    "spec_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Preprocessing spec (JSON) of a foreign checkpoint [default: the reference's].",
)
@click.option("--layers", is_flag=True, help="Print the calibration's table per layer too.")
@click.option(
    "--inspect",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Make nothing: tell a bundle's layers by operator and numbers, what stays in float and "
    "why, sizes, and multiplications for a window.",
)
@click.option(
    "--tune",
    "tunes",
    is_flag=True,
    help="Try CHECKPOINTs (all that ship, if none is named) in every precision, for every engine "
    "here, or for those of --target and --precision; write the bundle that fits. Needs "
    "--calibration and a bound.",
)
@click.option(
    "--max-latency",
    callback=options.reads_measure("ms", "a time such as 8ms"),
    metavar="TIME",
    help="With --tune: most time for a window, such as 8ms; the most right bundle fits. With "
    "--max-drop too, the fastest.",
)
@options.results
@options.common
@click.pass_context
def main(
    context: click.Context,
    /,
    checkpoints: tuple[Path, ...],
    spec_file: Path | None,
    layers: bool,
    inspect: Path | None,
    tunes: bool,
    max_latency: float | None,
    results: Results,
    **given: Any,
) -> None:
    """Export CHECKPOINT to a bundle that a device loads with mer-run.

    CHECKPOINT is one of mer-train or of the public reference implementation, or ia, it, lt or
    ia-compact for one that ships, with the ranges that ship beside it; without one it is ia. The
    bundle's engine must answer like PyTorch, or nothing is written: to the golden inputs always,
    and with --calibration to the clips of the validation actors, with both modalities and with
    each alone.
    """
    if inspect is not None:
        _refuse_others(context, INSPECTING, "--inspect")
        inspected = inspect_bundle(inspect)
        results.tell(inspected.to_dict(), inspected.format())
        return
    if tunes:
        _refuse_others(context, TUNING, "--tune")
        _tune(context, checkpoints, max_latency, results, given)
        return
    if max_latency is not None:
        raise click.UsageError("--max-latency goes with --tune")
    if len(checkpoints) > 1:
        raise click.UsageError("give one CHECKPOINT; several go with --tune")
    makes_ranges = given["precision"] == "int8" and given["calibration"] and not given["ranges"]
    if layers and not makes_ranges:
        raise click.UsageError("--layers goes with int8's --calibration, which measures layers")
    checkpoint = checkpoints[0] if checkpoints else None
    spec = _read_spec(spec_file) if spec_file else None
    names = {field.name for field in fields(ExportOptions)} & given.keys()
    chosen = ExportOptions(**{name: given.pop(name) for name in names})
    try:
        with StageBars(dict(STAGES)) as bars:
            report = export_bundle(
                checkpoint, given.pop("out"), chosen, spec=spec, progress=bars.show, **given
            )
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    text = report.format()
    results.tell(report.to_dict(), f"{text}\n{report.format_layers()}" if layers else text)


def _tune(
    context: click.Context,
    checkpoints: tuple[Path, ...],
    max_latency: float | None,
    results: Results,
    given: dict[str, Any],
) -> None:
    if given["calibration"] is None:
        raise click.UsageError("--tune proves on a corpus: give it --calibration CACHE")
    narrowed = {
        f"{name}s": [given[name]]
        for name in ("target", "precision")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    try:
        with StageBars({**STAGES, "timing": "Timing"}) as bars:
            found = tune(
                checkpoints,
                given["calibration"],
                given["out"],
                max_latency=max_latency,
                max_drop=given["max_drop"],
                progress=bars.show,
                **narrowed,
            )
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    results.tell(found.to_dict(), found.format())
    if found.chosen is None:
        raise ExportError(found.tell_nearest())


def _refuse_others(context: click.Context, wanted: frozenset[str], option: str) -> None:
    """Refuse options that would change nothing.

    Raises:
        click.UsageError: names one.
    """
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in wanted and context.params.get(name) != ():
            called = parameter.opts[0] if parameter.opts[0].startswith("-") else "CHECKPOINT"
            raise click.UsageError(f"{called} changes nothing with {option}: leave it out")


def _read_spec(path: Path) -> Spec:
    try:
        return Spec.from_dict(read_json(path))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: can't be read as a spec: {error}") from error
