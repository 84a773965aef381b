"""What a window showed, and how far the answers to such windows can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

#: What a window shows or a model is fed: face and voice, the voice alone, the face alone.
Modality = Literal["both", "audio", "video"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

#: Bounds of a temperature; those that are fitted are from 0.05 to 20.
LOWEST, HIGHEST = 0.01, 100.0


def name_modality(*, face: bool, voice: bool) -> Modality:
    """What was there, in a word; at least one of them was."""
    if face and voice:
        return "both"
    return "video" if face else "audio"


@dataclass(frozen=True)
class Temperatures:
    """What logits are divided by before the softmax: one temperature for each kind of window.

    A model that lacks a modality errs more often, so its probabilities need another temperature.
    """

    both: float = 1.0
    audio: float = 1.0
    video: float = 1.0

    @classmethod
    def read(cls, value: object) -> Temperatures:
        """An object with all three as JSON has it, or one number for all.

        Raises:
            ValueError: one is missing, or no number from 0.01 to 100.
        """
        given = value if isinstance(value, Mapping) else dict.fromkeys(MODALITIES, value)
        if set(given) != set(MODALITIES):
            raise ValueError(
                f"temperatures must be of {', '.join(MODALITIES)}, not of {list(given)}"
            )
        return cls(**{shown: _read_temperature(given[shown]) for shown in MODALITIES})

    def of(self, shown: Modality) -> float:
        """That of windows that show ``shown``."""
        temperature: float = getattr(self, shown)
        return temperature

    def to_dict(self) -> dict[str, float]:
        """JSON-ready data."""
        return asdict(self)


def _read_temperature(value: object) -> float:
    # JSON's true is an int to Python.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        if LOWEST <= value <= HIGHEST:
            return float(value)
        if math.isfinite(value):
            raise ValueError(f"a temperature must be from {LOWEST:g} to {HIGHEST:g}, not {value!r}")
    raise ValueError(f"a temperature must be a finite number above 0, not {value!r}")
