"""Put a trained checkpoint into the package: half precision on disk, notes and spec kept."""

from __future__ import annotations

from pathlib import Path

import click

from mer import load_checkpoint, save_checkpoint
from mer.weights import shipped_checkpoint
from mer_runtime.console import Command


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
def main(checkpoint: Path) -> None:
    """Ship CHECKPOINT (RUN/best.safetensors of mer-train) as the one of its fusion.

    \b
    Example:
        python scripts/ship_checkpoint.py runs/ia/best.safetensors
    """
    loaded = load_checkpoint(checkpoint)
    target = shipped_checkpoint(loaded.spec.fusion)
    save_checkpoint(target, loaded.model, loaded.spec, notes=loaded.notes, half=True)
    click.echo(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
