"""``mer-export``: a checkpoint in, a proved bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from mer_runtime.interrupts import hold_interrupts

hold_interrupts()  # before what takes long to load

# ruff: noqa: E402
from mer_runtime import options
from mer_runtime.bundle import Precision, Target
from mer_runtime.console import Command, exit_without
from mer_runtime.documents import read_json
from mer_runtime.errors import SpecError
from mer_runtime.options import Results
from mer_runtime.spec import Spec

try:
    from mer.cli.own_models import own_models
    from mer.cli.stages import StageBars
    from mer_export.exporter import STAGES, export_bundle
    from mer_export.proof.limits import MAX_DROP
    from mer_export.targets import CPUS, TARGETS, Cpu, host_cpu
except ModuleNotFoundError as error:  # the script is installed with the base package too
    exit_without(error.name or "torch", "export")

EPILOG = """\b
Examples:
  mer-export --target tensorrt
  mer-export runs/ia/best.safetensors --calibration cache/ravdess
  mer-export runs/ia/best.safetensors --target openvino --precision fp32 --out ia-bundle
  mer-export reference.pth --num-heads 4 --precision fp32 --out reference-bundle
"""


@click.command("mer-export", cls=Command, epilog=EPILOG)
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
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
    default=0,
    show_default=True,
    help="Draws the calibration's clips; another draw may pass a gate that is missed narrowly.",
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
    default=MAX_DROP,
    show_default=True,
    metavar="POINTS",
    help="Most prec1 that may be lost on the validation actors, or one clip if that is more.",
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
@options.results
@options.common
def main(
    checkpoint: Path | None,
    target: Target,
    precision: Precision,
    calibration: Path | None,
    ranges: Path | None,
    seed: int,
    float_head: bool,
    max_drop: float,
    cpu: Cpu | None,
    out: Path | None,
    face_detector: Path | None,
    labels: tuple[str, ...] | None,
    num_heads: int | None,
    spec_file: Path | None,
    layers: bool,
    results: Results,
) -> None:
    """Export CHECKPOINT to a bundle that a device loads with mer-run.

    CHECKPOINT is one of mer-train or of the public reference implementation, or ia, it or lt for
    one that ships, with the ranges that ship beside it; without one it is ia. The bundle's engine
    must answer like PyTorch, or nothing is written: to the golden inputs always, and with
    --calibration to the clips of the validation actors, with both modalities and with each alone.
    """
    with StageBars(dict(STAGES)) as bars:
        report = export_bundle(
            checkpoint,
            out,
            target=target,
            precision=precision,
            calibration=calibration,
            ranges=ranges,
            seed=seed,
            float_head=float_head,
            max_drop=max_drop,
            cpu=cpu,
            face_detector=face_detector,
            labels=labels,
            num_heads=num_heads,
            spec=_read_spec(spec_file) if spec_file else None,
            progress=bars.show,
        )
    text = report.format()
    results.tell(report.to_dict(), f"{text}\n{report.format_layers()}" if layers else text)


def _read_spec(path: Path) -> Spec:
    try:
        return Spec.from_dict(read_json(path))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: can't be read as a spec: {error}") from error
