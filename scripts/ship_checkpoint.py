"""Put a trained checkpoint into the package, with the ranges of its calibration."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import click

from mer import load_checkpoint, save_checkpoint
from mer.cli.stages import StageBars
from mer.weights import SHIPPED, shipped_checkpoint
from mer_export import ExportOptions, export_bundle
from mer_export.exporter import STAGES
from mer_export.ranges import RANGES_FILE, ranges_file
from mer_export.targets import Cpu
from mer_runtime.bundle import Target
from mer_runtime.console import Command
from mer_runtime.inputs.face import DETECTOR_VARIABLE

#: Those whose int8 bundles come with the runtime, so that ``mer-run ia-compact-int8 CLIP`` works.
BUNDLED = ("ia", "ia-compact")
#: Every dialect. The first is calibrated, for all; the others are proved with its ranges.
PROVED: tuple[tuple[Target, Cpu | None], ...] = (
    ("onnx", "x86"),
    ("onnx", "arm"),
    ("openvino", None),
    ("tensorrt", None),
)
BUNDLES = Path(__file__).resolve().parents[1] / "runtime" / "mer_runtime" / "bundles"


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--name",
    type=click.Choice(SHIPPED),
    help="What it ships as.  [default: the name of its fusion]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="As mer-export's."
)
@click.option("--float-head", is_flag=True, help="As mer-export's.")
def main(checkpoint: Path, cache: Path, name: str | None, seed: int, float_head: bool) -> None:
    """Ship CHECKPOINT (RUN/best.safetensors of mer-train) under a name.

    Its weights are stored in half precision. Ranges for int8 are made on the clips of CACHE's
    training actors, on the graphs of the weights so stored, and ship once the int8 bundle of every
    dialect has passed the gate on the validation actors.

    \b
    Example:
        python scripts/ship_checkpoint.py runs/ia/best.safetensors cache/ravdess
        python scripts/ship_checkpoint.py runs/gated/best.safetensors cache/small --name ia-compact
    """
    loaded = load_checkpoint(checkpoint)
    shipped = shipped_checkpoint(name or loaded.spec.fusion)
    save_checkpoint(
        shipped,
        loaded.model,
        loaded.spec,
        notes=loaded.notes,
        temperatures=loaded.temperatures,
        half=True,
    )
    click.echo(f"{shipped.name}: {shipped.stat().st_size / 1e6:.2f} MB")
    with tempfile.TemporaryDirectory() as folder:
        ranges: Path | None = None
        for target, cpu in PROVED:
            with StageBars(dict(STAGES)) as bars:
                report = export_bundle(
                    shipped,
                    Path(folder) / f"{target}-{cpu or 'any'}",
                    ExportOptions(
                        target=target,
                        ranges=ranges,
                        cpu=cpu,
                        seed=seed if ranges is None else None,  # draws the clips
                        float_head=float_head,
                        timing=False,
                    ),
                    calibration=cache,
                    progress=bars.show,
                )
            click.echo(report.format())
            if ranges is None:
                click.echo(report.format_layers())
            ranges = report.bundle / RANGES_FILE
        assert ranges is not None
        shutil.copyfile(ranges, ranges_file(shipped))
    if shipped.stem in BUNDLED:
        os.environ.pop(DETECTOR_VARIABLE, None)  # a downloaded file isn't ours to ship
        report = export_bundle(
            shipped,
            BUNDLES / f"{shipped.stem}-int8",
            options=ExportOptions(target="onnx", cpu="x86", timing=False),
        )
        click.echo(report.format())


if __name__ == "__main__":
    main()
