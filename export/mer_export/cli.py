"""``mer-export``: a checkpoint in, a proved bundle out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from mer_runtime import __version__
from mer_runtime.bundle import Precision, Target
from mer_runtime.console import Command, exit_without, progress, split_labels
from mer_runtime.errors import SpecError
from mer_runtime.spec import Spec

try:
    from mer_export.exporter import STAGES, ExportReport, export_bundle
    from mer_export.targets import EXPORTS
except ModuleNotFoundError as error:  # the script is installed with the base package too
    exit_without(error.name or "torch", "export")

EPILOG = """\b
Examples:
  mer-export --target onnx --precision fp32
  mer-export runs/ia/best.safetensors --target onnx --out ia-bundle
  mer-export reference.pth --num-heads 4 --out reference-bundle
"""

TARGETS = [target for target in get_args(Target) if any(target == t for t, _ in EXPORTS)]
PRECISIONS = [p for p in get_args(Precision) if any(p == other for _, other in EXPORTS)]


@click.command(cls=Command, epilog=EPILOG)
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option(
    "--target", type=click.Choice(TARGETS), default="onnx", show_default=True, help="Engine."
)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Numbers."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Folder to write [default: MODEL-TARGET-PRECISION]; a bundle there is replaced.",
)
@click.option(
    "--face-detector",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YuNet model to put into the bundle [default: $MER_FACE_DETECTOR].",
)
@click.option(
    "--labels",
    callback=split_labels,
    metavar="A,B,...",
    help="Class names of a model with others than ours.",
)
@click.option("--num-heads", type=click.IntRange(min=1), help="Heads of a reference checkpoint.")
@click.option(
    "--spec",
    "spec_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Preprocessing spec (JSON) of a foreign checkpoint [default: the reference's].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.version_option(__version__)
def main(
    checkpoint: Path | None,
    target: Target,
    precision: Precision,
    out: Path | None,
    face_detector: Path | None,
    labels: tuple[str, ...] | None,
    num_heads: int | None,
    spec_file: Path | None,
    as_json: bool,
) -> None:
    """Export CHECKPOINT to a bundle that a device loads with mer-run.

    CHECKPOINT is one of mer-train or of the public reference implementation; without one, the
    checkpoint that ships is taken. The bundle's engine must give the same answers as PyTorch
    to the golden inputs, or nothing is written.
    """
    with progress(length=STAGES, label="Exporting") as bar:
        report = export_bundle(
            checkpoint,
            out,
            target=target,
            precision=precision,
            face_detector=face_detector,
            labels=labels,
            num_heads=num_heads,
            spec=_read_spec(spec_file) if spec_file else None,
            progress=lambda done, _: bar.update(done - bar.pos),
        )
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        _print(report)


def _read_spec(path: Path) -> Spec:
    try:
        return Spec.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: can't be read as a spec: {error}") from error


def _print(report: ExportReport) -> None:
    gate = report.gate
    detector = "YuNet inside" if report.face_detector else "no face detector inside"
    click.echo(f"Exported {report.target} {report.precision} to {report.bundle}")
    click.echo(f"  graph {report.graph_size / 1e6:.1f} MB, bundle {report.size / 1e6:.1f} MB")
    click.echo(
        f"  gate: {gate.cases} golden inputs, max |Δlogit| {gate.max_difference:.1e} "
        f"(at most {gate.tolerance:.0e}), same label in {gate.agreement:.0f} %"
    )
    click.echo(f"  {detector}; next: mer-run {report.bundle} CLIP")
