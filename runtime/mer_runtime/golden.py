"""Golden inputs and answers: what travels with a bundle so that it can prove itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.arrays import read_arrays
from mer_runtime.feeds import MODALITIES, Temperatures

GOLDEN_FILE = "golden.npz"
#: The kinds of type that each array may have: text, floats, or integers.
KINDS = {
    "cases": "U",
    "mfcc": "f",
    "crops": "u",
    "sequence": "i",
    "features": "f",
    "reference": "f",
    "answers": "f",
    "tolerance": "fi",
    "temperatures": "f",
    "signal_mfcc": "f",
    "signal_crop": "u",
}


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
        temperatures: what the bundle's logits are divided by, as it was proved; in the file (3,)
            float64, in the order of ``MODALITIES``.
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
    temperatures: Temperatures
    signal_mfcc: NDArray[np.float32]
    signal_crop: NDArray[np.uint8]

    def case(self, i: int) -> tuple[NDArray[np.float32] | None, NDArray[np.uint8] | None]:
        """Inputs of case ``i`` for ``Recognizer.infer``; None for a missing modality."""
        voice, face = bool(self.mfcc[i].any()), bool((self.sequence[i] >= 0).all())
        return (
            self.mfcc[i] if voice else None,
            self.crops[self.sequence[i]] if face else None,
        )


def read_golden(content: bytes) -> Golden:
    """Read the content of ``golden.npz``.

    Raises:
        ValueError: it can't be read: damaged, too large, an array missing or of another kind, or a
            temperature that is none.
    """
    arrays: dict[str, Any] = dict(read_arrays(content, Golden.__dataclass_fields__))
    for name, kind in KINDS.items():
        if arrays[name].dtype.kind not in kind:
            raise ValueError(f"{name} is of another type")
    if arrays["tolerance"].size != 1:
        raise ValueError("tolerance isn't one number")
    if arrays["temperatures"].shape != (3,):
        raise ValueError("temperatures aren't three numbers")
    if arrays["cases"].ndim != 1:
        raise ValueError("cases aren't a list of names")
    return Golden(
        **{
            **arrays,
            "cases": tuple(str(name) for name in arrays["cases"]),
            "tolerance": float(arrays["tolerance"].reshape(())),
            "temperatures": Temperatures.read(
                dict(zip(MODALITIES, arrays["temperatures"].tolist(), strict=True))
            ),
        }
    )


def write_golden(folder: Path, golden: Golden) -> None:
    """Write ``golden.npz``, compressed."""
    arrays: dict[str, Any] = {
        name: np.array(getattr(golden, name)) for name in Golden.__dataclass_fields__
    }
    arrays["temperatures"] = np.array([golden.temperatures.of(shown) for shown in MODALITIES])
    np.savez_compressed(folder / GOLDEN_FILE, **arrays)
