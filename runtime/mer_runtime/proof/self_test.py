"""The self-test: a bundle's golden inputs, replayed on an engine and compared with its answers.

The same graphs can answer otherwise on another processor: int8 kernels of some saturate. So a
bundle is replayed when it is first loaded. That it passed is kept beside prepared graphs, and
until bundle, engine or device is another, loading costs nothing more.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mer_runtime.bundle import DIGEST_FIELD, Bundle
from mer_runtime.engines import Backend, read_no_face
from mer_runtime.engines.cache import EngineKey, KeptFile, describe_cpu
from mer_runtime.engines.processor import name_cpu
from mer_runtime.errors import BundleError
from mer_runtime.feeds import MODALITIES
from mer_runtime.golden import GOLDEN_FILE, Golden
from mer_runtime.proof.signals import signal_crop, signal_mfcc
from mer_runtime.spec import Spec
from mer_runtime.store import find_folder

logger = logging.getLogger(__name__)

#: 0 in it loads bundles without the replay.
PROVE_VARIABLE = "MER_PROVE"
#: Decibels by which MFCCs may differ: float32 sums in another order, 80 dB under the loudest.
MFCC_TOLERANCE = 0.05
#: Levels of 255 by which a pixel may differ: versions of OpenCV enlarge with other roundings.
CROP_TOLERANCE = 3
#: Inside the folder for engines.
PASSES_FOLDER = "self-tests"


class Network(Protocol):
    """What answers: a ``Backend``, or a float network with the same two methods."""

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A window's crops (frames, S, S, 3) to features (frames, F)."""
        ...

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Raw MFCCs (n_mfcc, T) and a window's features (frames, F) to logits (classes,)."""
        ...


@dataclass(frozen=True)
class SelfTest:
    """How a device's answers to the golden inputs differ from those of the export.

    Attributes:
        max_difference: largest |Δlogit|; infinite where a logit isn't a number.
        fault: what else is not as it was proved, in words; empty where all is.
    """

    max_difference: float
    tolerance: float
    cases: int
    fault: str = ""

    @property
    def passed(self) -> bool:
        return not self.fault and self.max_difference <= self.tolerance


def encode_crops(network: Network, spec: Spec, golden: Golden) -> NDArray[np.float32]:
    """Features (k, F) of the golden crops, each encoded once.

    They go in by a window's number of them: every engine is prepared for that.
    """
    frames, count = spec.video.frames, len(golden.crops)
    # The last window is filled up with the first crops again.
    windows = np.resize(np.arange(count), (-(-count // frames), frames))
    return np.concatenate([network.encode(golden.crops[window]) for window in windows])[:count]


def replay(
    network: Network,
    spec: Spec,
    no_face: NDArray[np.float32],
    golden: Golden,
    features: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Answer the golden inputs.

    Args:
        no_face: (F,) features of a black crop, for the cases without a face.
        features: (k, F) of the golden crops, where they were encoded already.

    Returns:
        Logits (n, classes) float32.
    """
    if features is None:
        features = encode_crops(network, spec, golden)
    # A missing face is -1 in the sequence: the last row.
    rows = np.concatenate([features, no_face[None]])
    cases = zip(golden.mfcc, golden.sequence, strict=True)
    return np.stack([network.classify(mfcc, rows[shown]) for mfcc, shown in cases])


def compare(golden: Golden, logits: NDArray[np.float32]) -> SelfTest:
    """Set logits (n, classes) against the golden answers."""
    differences = np.abs(logits - golden.answers)
    worst = float(np.where(np.isnan(differences), np.inf, differences).max())
    return SelfTest(worst, golden.tolerance, len(golden.cases))


def find_fault(bundle: Bundle, golden: Golden) -> str:
    """What of a bundle's inputs or outputs isn't as it was proved, in words; empty if nothing.

    The test signals are prepared as the manifest says, and its temperatures are compared.
    """
    mfcc = np.abs(signal_mfcc(bundle.spec.audio) - golden.signal_mfcc).max()
    if not mfcc <= MFCC_TOLERANCE:
        return f"MFCCs of the test signal are off by {mfcc:.2g}"
    crop = signal_crop(bundle.spec.video).astype(np.int16) - golden.signal_crop
    if np.abs(crop).max() > CROP_TOLERANCE:
        return f"pixels of the test signal's crop are off by {np.abs(crop).max()}"
    for shown in MODALITIES:
        temperature, proved = bundle.temperatures.of(shown), golden.temperatures.of(shown)
        if temperature != proved:
            return f"temperature {temperature:g} of {shown} is not the one proved, {proved:g}"
    return ""


def run_self_test(bundle: Bundle, backend: Backend) -> SelfTest:
    """Replay a bundle's golden inputs.

    Raises:
        BundleError: they can't be read, or aren't of the bundle's spec.
    """
    golden = bundle.golden()
    _require_fit(bundle, golden)
    no_face = read_no_face(bundle, backend.feature_width)
    result = compare(golden, replay(backend, bundle.spec, no_face, golden))
    return dataclasses.replace(result, fault=find_fault(bundle, golden))


def prove_answers(bundle: Bundle, backend: Backend) -> None:
    """Replay a bundle's golden inputs, unless it passed here before.

    "Here" is the same version of the engine on the same kind of processor and GPU.

    Raises:
        BundleError: the answers are wrong here.
    """
    place = find_pass(bundle, backend)
    if place.read() is not None:
        logger.info("%s passed its self-test here before (%s)", backend.name, place.path)
        return
    result = run_self_test(bundle, backend)
    if result.passed:
        logger.info(
            "%s passed its self-test: %d golden inputs, max |Δlogit| %.2e of %.2e",
            backend.name,
            result.cases,
            result.max_difference,
            result.tolerance,
        )
        place.keep(json.dumps(asdict(result)).encode())
        return
    if result.fault:
        raise BundleError(bundle.path, f"{result.fault}: export the bundle again")
    saturates = bundle.precision == "int8" and backend.gpu is None
    raise BundleError(
        bundle.path,
        f"{backend.name} on {backend.gpu or name_cpu()} is off its golden answers by "
        f"{result.max_difference:.3g}, more than {result.tolerance:.3g}"
        + (" (int8 kernels of some processors saturate)" if saturates else "")
        + ": name another engine with --backend, or export the bundle again with this version",
    )


def is_proving() -> bool:
    """Whether the environment lets bundles be replayed when they are loaded."""
    return os.environ.get(PROVE_VARIABLE) != "0"


def find_pass(bundle: Bundle, backend: Backend) -> KeptFile:
    """Where it is kept that a bundle passed on an engine here."""
    device = f"{describe_cpu()}, {backend.gpu}" if backend.gpu else describe_cpu()
    key = EngineKey(str(bundle.manifest[DIGEST_FIELD]), backend.name, device, {})
    return KeptFile(key, find_folder() / PASSES_FOLDER / key.file_name("self-test"))


def _require_fit(bundle: Bundle, golden: Golden) -> None:
    spec, cases = bundle.spec, len(golden.cases)
    frames, *crop = spec.video.shape
    fits = (
        min(cases, len(golden.crops)) > 0
        and golden.mfcc.shape == (cases, *spec.audio.shape)
        and golden.crops.shape[1:] == golden.signal_crop.shape == tuple(crop)
        and golden.signal_mfcc.shape == spec.audio.shape
        and golden.sequence.shape == (cases, frames)
        and golden.answers.shape == (cases, len(spec.labels))
        and golden.features.ndim == 2
        and len(golden.features) == len(golden.crops)
        and golden.reference.shape == golden.answers.shape
        and golden.sequence.min() >= -1
        and golden.sequence.max() < len(golden.crops)
        and np.isfinite(golden.mfcc).all()
    )
    if not fits:
        raise BundleError(
            bundle.path, f"its {GOLDEN_FILE} isn't of its spec: export the bundle again"
        )
