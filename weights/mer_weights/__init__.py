"""Checkpoints of mer-edge and the ranges of their calibration: see ``MODEL_CARD.md``.

This package has no code: ``mer.shipped_checkpoint`` finds what lies here.
"""

__version__ = "0.1.0"
