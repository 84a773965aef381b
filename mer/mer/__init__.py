"""Models, data, training and evaluation of face-and-voice emotion recognition (needs torch)."""

from mer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]
