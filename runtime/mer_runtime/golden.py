"""Golden inputs and answers: what travels with a bundle so that it can prove itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN_FILE = "golden.npz"


@dataclass(frozen=True)
class Golden:
    """Inputs and answers that travel with a bundle.

    Attributes:
        cases: a name for each of the n cases.
        mfcc: (n, n_mfcc, T) float32; zeros where the voice is missing.
        crops: (k, S, S, 3) uint8, the distinct crops; a window of its own for each case would
            weigh megabytes.
        sequence: (n, frames) which crop a case shows when; -1 where the face is missing.
        features: (k, F) float32, what the float model's encoder makes of the crops.
        reference: (n, classes) logits of the float PyTorch model.
        answers: (n, classes) logits of the bundle's engine where it was made.
        tolerance: largest difference from ``answers`` that a device may show.
        temperature: what the bundle's logits are divided by, as it was proved.
        signal_mfcc, signal_crop: what the test signals give (``mer_runtime.proof.signals``).
    """

    cases: tuple[str, ...]
    mfcc: NDArray[np.float32]
    crops: NDArray[np.uint8]
    sequence: NDArray[np.int64]
    features: NDArray[np.float32]
    reference: NDArray[np.float32]
    answers: NDArray[np.float32]
    tolerance: float
    temperature: float
    signal_mfcc: NDArray[np.float32]
    signal_crop: NDArray[np.uint8]

    def case(self, i: int) -> tuple[NDArray[np.float32] | None, NDArray[np.uint8] | None]:
        """Inputs of case ``i`` for ``Recognizer.infer``; None for a missing modality."""
        voice, face = bool(self.mfcc[i].any()), bool((self.sequence[i] >= 0).all())
        return (
            self.mfcc[i] if voice else None,
            self.crops[self.sequence[i]] if face else None,
        )


def read_golden(file: Path) -> Golden:
    """Read ``golden.npz``.

    Raises:
        OSError, KeyError, ValueError: it can't be read.
    """
    with np.load(file, allow_pickle=False) as data:
        arrays: dict[str, Any] = {name: data[name] for name in Golden.__dataclass_fields__}
    return Golden(
        **{
            **arrays,
            "cases": tuple(str(name) for name in arrays["cases"]),
            "tolerance": float(arrays["tolerance"]),
            "temperature": float(arrays["temperature"]),
        }
    )


def write_golden(folder: Path, golden: Golden) -> None:
    """Write ``golden.npz``, compressed."""
    arrays: dict[str, Any] = {
        name: np.array(getattr(golden, name)) for name in Golden.__dataclass_fields__
    }
    np.savez_compressed(folder / GOLDEN_FILE, **arrays)
