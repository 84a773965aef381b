"""``mer-run``: clips and streams in, emotions out."""

from mer_runtime.cli.command import main

__all__ = ["main"]
