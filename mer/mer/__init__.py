"""Models, data, training and evaluation of face-and-voice emotion recognition (needs torch)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]


def __getattr__(name: str) -> Any:
    # Late, so that a command can say that torch is missing before anything imports it.
    if name in __all__:
        from mer import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module 'mer' has no attribute {name!r}")
