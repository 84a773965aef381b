"""Put a trained checkpoint into the package, with the ranges of its calibration."""

from __future__ import annotations

from pathlib import Path

import click

from mer import load_checkpoint, save_checkpoint
from mer.cache import Cache
from mer.weights import shipped_checkpoint
from mer_calibration import format_layers
from mer_export import export_bundle
from mer_export.calibration import calibrate
from mer_export.graphs import export_graphs
from mer_runtime.console import Command, progress

#: The fusion whose int8 bundle comes with the runtime, so that ``mer-run ia CLIP`` works.
BUNDLED = "ia"
BUNDLES = Path(__file__).resolve().parents[1] / "runtime" / "mer_runtime" / "bundles"


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
def main(checkpoint: Path, cache: Path) -> None:
    """Ship CHECKPOINT (RUN/best.safetensors of mer-train) as the one of its fusion.

    Its weights are stored in half precision; ranges for int8 are made on the clips of CACHE's
    training actors, on the graphs of the weights so stored.

    \b
    Example:
        python scripts/ship_checkpoint.py runs/ia/best.safetensors cache/ravdess
    """
    loaded = load_checkpoint(checkpoint)
    target = shipped_checkpoint(loaded.spec.fusion)
    save_checkpoint(
        target,
        loaded.model,
        loaded.spec,
        notes=loaded.notes,
        temperature=loaded.temperature,
        half=True,
    )
    click.echo(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB")
    shipped = load_checkpoint(target)
    with progress(length=1, label="Calibrating") as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        made = calibrate(shipped, export_graphs(shipped), Cache.open(cache), progress=show)
    made.ranges.write(target.with_name(f"{target.stem}.ranges.json"))
    click.echo(format_layers(made.layers))
    if target.stem == BUNDLED:
        report = export_bundle(out=BUNDLES / BUNDLED, cpu="x86", timing=False)
        click.echo(report.format())


if __name__ == "__main__":
    main()
