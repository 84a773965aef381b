"""``mer-run``: clips and streams in, emotions out."""

from mer_runtime.interrupts import hold_interrupts

hold_interrupts()  # before what takes long to load

from mer_runtime.cli.command import main  # noqa: E402

__all__ = ["main"]
