"""A run on this device, from bundles to results."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mer_bench.accuracy import measure_accuracy, require_clips
from mer_bench.contender import BenchError, Setting, choose_cores, name_entries
from mer_bench.extras import require
from mer_bench.machine import describe_machine, describe_state
from mer_bench.measurement import Tell, measure
from mer_bench.result import assemble
from mer_runtime.bundle import Bundle, load_bundle
from mer_runtime.engines import usable_cores
from mer_runtime.files import is_file
from mer_runtime.inputs.face import find_named_detector
from mer_runtime.proof.choice import EngineChoice


def run_bench(
    bundles: Sequence[str | Path],
    *,
    clip: str | Path | None = None,
    reference: str | None = None,
    cache: str | Path | None = None,
    threads: int | None = None,
    seconds: float = 10.0,
    face_detector: str | Path | None = None,
    backend: EngineChoice | None = None,
    tell: Tell = lambda step: None,
) -> dict[str, Any]:
    """Measure bundles on this device.

    Args:
        bundles: folders by ``mer-export``, or names of those that ship.
        clip: what is answered over and over; by default the sample clip.
        reference: a checkpoint to time in PyTorch.
        cache: a corpus by ``mer-prepare``, on whose test split accuracy is measured.
        threads: of each contender; by default one for each core.
        seconds: measured for each contender in each mode.
        face_detector: YuNet's file, or ``haar``; by default ``$MER_FACE_DETECTOR``, a bundle's own
            or the YuNet that ships.
        backend: the engine that every bundle runs in, as ``Recognizer.load`` takes it; by default
            each one's own.
        tell: called with each step that begins.

    Returns:
        What ``mer-bench --json`` prints (see ``mer_bench.result``).

    Raises:
        BundleError: a bundle can't be loaded.
        BenchError: a contender or the clip can't be used.
        CacheError, CorpusError: the cache can't be used.
        MissingExtraError: ``reference`` or ``cache`` needs PyTorch, which isn't installed.
    """
    loaded = [load_bundle(bundle) for bundle in bundles]
    if reference is not None:
        require("torch", "train", "the reference")
        _require_checkpoint(reference)
    if cache is not None:
        require("torch", "train", "accuracy on a cache")
        require_clips(cache)
    entries = name_entries(
        [(Path(given), one.path) for given, one in zip(bundles, loaded, strict=True)], reference
    )
    threads = threads or usable_cores()
    detector = find_named_detector(face_detector) or _own_detector(loaded)
    machine = {**describe_machine(), "before": describe_state()}
    setting = Setting(choose_clip(clip), threads, choose_cores(threads), detector, backend)
    times = measure(entries, setting, seconds, tell)
    machine["after"] = describe_state()
    accuracy = None
    if cache is not None:
        tell("accuracy")
        accuracy = measure_accuracy(entries, cache)
    return assemble(entries, times, setting, seconds, machine, accuracy)


def choose_clip(clip: str | Path | None) -> Path:
    """The clip that was given, else the sample that comes with the exporter, absolute.

    Raises:
        BenchError: there is none.
    """
    samples = Path(str(resources.files("mer_export"))) / "samples"
    chosen = Path(clip) if clip else samples / "portrait.mp4"
    if not is_file(chosen):
        raise BenchError(f"there is no clip {chosen}: name one with --clip")
    return chosen.resolve()


def _require_checkpoint(reference: str) -> None:
    from mer.weights import find_checkpoint

    if not is_file(find_checkpoint(reference)):
        raise BenchError(f"reference: {reference}: there is no such file")


def _own_detector(bundles: Sequence[Bundle]) -> Path | None:
    return next((one.face_detector for one in bundles if one.face_detector), None)
