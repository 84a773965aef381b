"""A search on this machine: every checkpoint in every precision and engine, proved and timed."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from mer.weights import SHIPPED
from mer_export.drafting import check_replaceable, replacing
from mer_export.errors import ExportError, OptionError
from mer_export.exporter import export_origin
from mer_export.options import ExportOptions
from mer_export.origin import Origin
from mer_export.ranges import RANGES_FILE, ranges_file
from mer_export.report import ExportReport
from mer_export.targets import TARGETS
from mer_export.tuning.candidates import Candidate, Tuning, choose, mark_front
from mer_runtime import Recognizer
from mer_runtime.bundle import PRECISIONS, Precision, Target
from mer_runtime.engines import usable_cores
from mer_runtime.errors import MerError
from mer_runtime.intervals import Interval, find_interval
from mer_runtime.turns import take_turns

logger = logging.getLogger(__name__)

#: Rounds that count, and those before them.
ROUNDS, WARM_UP = 15, 2

Progress = Callable[[str, int, int], None]


def tune(
    checkpoints: Sequence[str | Path],
    calibration: str | Path,
    out: str | Path | None = None,
    *,
    max_latency: float | None = None,
    max_drop: float | None = None,
    targets: Sequence[Target] | None = None,
    precisions: Sequence[Precision] = PRECISIONS,
    progress: Progress | None = None,
) -> Tuning:
    """Try bundles on this machine, and write the one that fits.

    Each is proved as ``export_bundle`` proves it, on the cache's validation actors; one that the
    gate refuses is told and not taken. Int8's ranges are those that ship with a checkpoint or lie
    beside it; where there are none, they are made on the cache's training actors.

    Args:
        checkpoints: those to try; where there are none, all that ship.
        out: where the bundle that fits goes, by default ``MODEL-TARGET-PRECISION`` here.
        max_latency: milliseconds for a window. Of the bundles whose whole interval is below, the
            most right one fits.
        max_drop: points of prec1 less than the best of the checkpoints has in float. Of the bundles
            within both bounds, the fastest fits.
        targets: to try; by default those whose engine runs here.
        progress: called with (stage, steps done, steps in all).

    Returns:
        All that was tried; where none fits, ``chosen`` is None and nothing is written.

    Raises:
        OptionError: neither bound is given.
        ExportError: no bundle could be made at all.
        MerError: a checkpoint or the cache can't be used, as ``export_bundle``.
    """
    if max_latency is None and max_drop is None:
        raise OptionError("--tune needs a bound: --max-latency 8ms, --max-drop 0.5, or both")
    show = progress or (lambda stage, done, total: None)
    origins = [Origin(one, calibration, show=show) for one in checkpoints or SHIPPED]
    names = [origin.path.stem for origin in origins]
    if len(set(names)) < len(names):
        raise OptionError(f"two checkpoints have one name: {', '.join(sorted(names))}")
    if out is not None:
        check_replaceable(Path(out))
    tried = targets or [name for name, export in TARGETS.items() if export.is_here()]
    with tempfile.TemporaryDirectory(prefix="mer-edge-") as folder:
        made = [
            (origin, target, precision, _try(origin, Path(folder), target, precision))
            for origin in origins
            for target in tried
            for precision in precisions
        ]
        reports = [report for *_, report in made if isinstance(report, ExportReport)]
        if not reports:
            raise ExportError(f"no bundle could be made; the last one: {made[-1][-1]}")
        threads = usable_cores()
        times = _time(reports, threads, show)
        best = max(report.gate.modalities[0].prec1_float for report in reports)
        candidates = [_describe(*one, times, best) for one in made]
        candidates = mark_front(candidates)
        clips = reports[0].gate.modalities[0].comparison.n
        chosen = choose(candidates, max_latency, max_drop)
        place = None
        if chosen is not None:
            place = Path(out) if out is not None else Path(chosen.name)
            check_replaceable(place)
            with replacing(place) as draft:
                shutil.copytree(Path(folder) / chosen.name, draft, dirs_exist_ok=True)
    return Tuning(tuple(candidates), chosen, place, clips, threads, max_latency, max_drop)


def _try(
    origin: Origin, folder: Path, target: Target, precision: Precision
) -> ExportReport | MerError:
    """Export one candidate; gives the error where that doesn't work."""
    name = f"{origin.path.stem}-{target}-{precision}"
    ranges = None
    if precision == "int8":
        earlier = (path / RANGES_FILE for path in sorted(folder.glob(f"{origin.path.stem}-*-int8")))
        known = [ranges_file(origin.path), *earlier]
        ranges = next((path for path in known if path.is_file()), None)
    try:
        options = ExportOptions(target=target, precision=precision, ranges=ranges, timing=False)
        return export_origin(origin, folder / name, options)
    except MerError as error:
        logger.info("%s isn't made: %s", name, error)
        return error


def _time(reports: Sequence[ExportReport], threads: int, show: Progress) -> dict[Path, Interval]:
    """Let each bundle answer its first golden window, in turns."""
    runs: dict[str, Callable[[], float]] = {}
    steps = len(reports) * (ROUNDS + WARM_UP)
    done = 0

    def time_one(engine: Recognizer, mfcc: Any, faces: Any) -> float:
        nonlocal done
        engine.infer(mfcc, faces)  # wakes its threads
        start = perf_counter()
        engine.infer(mfcc, faces)
        taken = 1e3 * (perf_counter() - start)
        done += 1
        show("timing", done, steps)
        return taken

    for report in reports:
        engine = Recognizer.load(report.bundle, threads, prove=False)
        mfcc, faces = engine.bundle.golden().case(0)
        runs[str(report.bundle)] = partial(time_one, engine, mfcc, faces)
    times = take_turns(runs, ROUNDS, warm_up=WARM_UP)
    return {Path(name): find_interval(taken) for name, taken in times.items()}


def _describe(
    origin: Origin,
    target: Target,
    precision: Precision,
    report: ExportReport | MerError,
    times: dict[Path, Interval],
    best: float,
) -> Candidate:
    checkpoint = origin.path.name
    if isinstance(report, MerError):
        reason = " ".join(str(report).split())
        return Candidate(checkpoint, target, precision, refused=reason)
    both = report.gate.modalities[0]
    return Candidate(
        checkpoint,
        target,
        precision,
        prec1=both.prec1,
        prec1_interval=both.prec1_interval,
        drop=best - both.prec1,
        latency=times[report.bundle],
        size=report.size,
    )
