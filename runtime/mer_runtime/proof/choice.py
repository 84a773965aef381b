"""``--backend``: which of the engines on this device runs a bundle."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from mer_runtime.bundle import Bundle
from mer_runtime.engines import Backend, open_backend, usable_cores
from mer_runtime.errors import BundleError, MerError
from mer_runtime.proof.self_test import is_proving, prove_answers
from mer_runtime.registry import ENGINES, list_engines

logger = logging.getLogger(__name__)

#: What ``--backend`` takes: an engine, or ``auto``, the fastest of those that can.
EngineChoice = str
ENGINE_CHOICES: tuple[EngineChoice, ...] = ("auto", *ENGINES)

#: Windows timed with each engine; the fastest counts, for the others had company.
RUNS = 5


@dataclass(frozen=True)
class Choice:
    """The engine that runs a bundle.

    Attributes:
        considered: for each engine that was tried, its time for a window or why it wasn't
            taken, in words; empty where there was no choice.
    """

    backend: Backend
    considered: Mapping[str, str]


def choose_backend(
    bundle: Bundle,
    choice: EngineChoice | None = None,
    threads: int | None = None,
    *,
    prove: bool = True,
) -> Choice:
    """Load a bundle into an engine that gives its golden answers here, within its tolerance.

    ``auto`` times a window on each engine that does and keeps the fastest, which takes a second
    or two.

    Args:
        choice: an engine, or ``auto``; by default, the one that the bundle was made for.
        prove: False takes an engine that was named for what it is, and so does ``MER_PROVE=0``;
            ``auto`` proves each.

    Raises:
        BundleError: the engine can't run this target or answers otherwise; with ``auto``, no
            engine here can.
        MissingExtraError: the engine isn't installed.
        EngineError: TensorRT can't build or run an engine here.
    """
    threads = threads or usable_cores()
    possible = list_engines(bundle.target)
    if choice != "auto":
        engine = choice or possible[0]
        if engine not in possible:
            raise BundleError(
                bundle.path,
                f"{engine} can't run a bundle for {bundle.target}; {' and '.join(possible)} can",
            )
        backend = _open(bundle, engine, threads)
        if prove and is_proving():
            prove_answers(bundle, backend)
        reason = "asked for" if choice else f"the bundle is for {bundle.target}"
        logger.info("%s runs %s on %d threads: %s", backend.name, bundle.path, threads, reason)
        return Choice(backend, {})
    passed: dict[float, Backend] = {}
    considered: dict[str, str] = {}
    errors: list[MerError] = []
    for engine in possible:
        try:
            backend = _open(bundle, engine, threads)
            prove_answers(bundle, backend)
        except MerError as error:
            errors.append(error)
            considered[engine] = " ".join(str(error).split())
            continue
        seconds = time_window(bundle, backend)
        passed[seconds] = backend
        considered[backend.name] = f"{1000 * seconds:.1f} ms a window"
    if not passed:
        raise errors[0]
    fastest = passed[min(passed)]
    for name, result in considered.items():
        logger.info("tried %s: %s", name, result)
    logger.info("%s runs %s on %d threads: the fastest", fastest.name, bundle.path, threads)
    return Choice(fastest, considered)


def _open(bundle: Bundle, name: str, threads: int) -> Backend:
    engine = ENGINES[name]
    if engine.target != bundle.target:
        settings = engine.reads[bundle.target]
        bundle = dataclasses.replace(bundle, target=engine.target, engine=settings)
    return open_backend(bundle, threads)


def time_window(bundle: Bundle, backend: Backend) -> float:
    """Seconds for a window of faces and voice, the least of some."""
    faces = np.zeros(bundle.spec.video.shape, np.uint8)
    mfcc = np.zeros(bundle.spec.audio.shape, np.float32)
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        backend.classify(mfcc, backend.encode(faces))
        times.append(perf_counter() - start)
    return min(times)
