"""Checkpoint to bundle: graphs, calibration, gate, manifest, and one rename at the end."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from mer_calibration.graph.placement import place
from mer_export.assembly import Assembly
from mer_export.calibration import Calibration, calibrate
from mer_export.drafting import check_replaceable, replacing
from mer_export.errors import OptionError
from mer_export.feeds import hash_preprocessing
from mer_export.manifest import Source
from mer_export.origin import Origin, Progress
from mer_export.proof.limits import MAX_DROP
from mer_export.ranges import find_ranges
from mer_export.report import ExportReport
from mer_export.targets import Cpu, find_dialect, find_target, host_cpu
from mer_runtime.bundle import Precision, Target
from mer_runtime.inputs.face import HAAR, YuNetDetector, find_named_detector
from mer_runtime.spec import Spec

logger = logging.getLogger(__name__)

#: Of an export, in order, and what a progress bar calls them.
STAGES = {
    "graphs": "Exporting graphs",
    "calibration": "Calibrating",
    "reference": "Asking the float model",
    "gate": "Asking the engine",
    "bias": "Correcting biases",
}


def export_bundle(
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    *,
    target: Target = "onnx",
    precision: Precision = "int8",
    calibration: str | Path | None = None,
    ranges: str | Path | None = None,
    max_drop: float | None = None,
    cpu: Cpu | None = None,
    face_detector: str | Path | None = None,
    labels: tuple[str, ...] | None = None,
    num_heads: int | None = None,
    spec: Spec | None = None,
    seed: int | None = None,
    float_head: bool = False,
    timing: bool = True,
    progress: Progress | None = None,
) -> ExportReport:
    """Make a bundle from a checkpoint, and prove that it answers like the float model.

    Args:
        checkpoint: ours or the reference implementation's; by default the ``ia`` that ships.
            ``ia``, ``it`` and ``lt`` are those that ship, unless such a file lies here.
        out: the bundle's folder, by default ``MODEL-TARGET-PRECISION`` here. A bundle that is
            there already is replaced; another folder with something in it is refused.
        calibration: a cache of ``mer-prepare``: int8 ranges are made on its training actors'
            clips, and the bundle is proved on its validation actors'. Without it the golden
            inputs alone are replayed.
        ranges: of an earlier calibration of the same checkpoint; with ``calibration`` they are
            proved and none are made. By default, for int8 without ``calibration``, those that
            ship with the checkpoint or lie beside it.
        max_drop: points of prec1 that may be lost on the validation actors (or one clip), by
            default 0.5.
        cpu: what an int8 bundle for ONNX Runtime is made for, by default this machine's kind.
        face_detector: YuNet's file to put in, by default that of ``$MER_FACE_DETECTOR``.
        labels, num_heads, spec: see ``mer.load_checkpoint``.
        seed: draws the calibration's clips, by default 0. Answers that are close calls are rounded
            either way: where a gate is missed narrowly, another draw may pass it.
        float_head: leaves the head of an int8 bundle in float from the start: a window takes 2 %
            longer, and the voice alone is answered as by the float model.
        timing: whether to measure the time of a window too.
        progress: called with (stage, steps done, steps in all); stages as in ``STAGES``.

    Raises:
        CheckpointError: the checkpoint can't be loaded.
        CalibrationError: the calibration set is too small or not finite, there are no ranges, or
            they belong to another model.
        CacheError, CorpusError: the cache can't be read, doesn't suit the model, or lacks actors.
        ExportError: there is no such target or CPU, or the network can't be exported.
        FaceDetectorError: ``face_detector`` isn't a YuNet file.
        GateError: the bundle's answers differ from the checkpoint's; nothing is written.
        OptionError: an argument is given where it would change nothing.
        MissingExtraError, EngineError: the target's package isn't there, or refuses a graph.
        OutputError: ``out`` can't be written, or another export is writing it.
    """
    _check_options(
        target,
        precision,
        calibration=calibration,
        ranges=ranges,
        seed=seed,
        float_head=float_head,
        max_drop=max_drop,
        cpu=cpu,
    )
    show = progress or (lambda stage, done, total: None)
    find_dialect(target, cpu or host_cpu())  # an unknown one is refused first
    origin = Origin(
        checkpoint, calibration, num_heads=num_heads, labels=labels, spec=spec, show=show
    )
    return export_origin(
        origin,
        out,
        target=target,
        precision=precision,
        ranges=ranges,
        max_drop=max_drop,
        cpu=cpu,
        face_detector=face_detector,
        seed=seed,
        float_head=float_head,
        timing=timing,
    )


def export_origin(
    origin: Origin,
    out: str | Path | None,
    *,
    target: Target,
    precision: Precision,
    ranges: str | Path | None = None,
    max_drop: float | None = None,
    cpu: Cpu | None = None,
    face_detector: str | Path | None = None,
    seed: int | None = None,
    float_head: bool = False,
    timing: bool = True,
) -> ExportReport:
    """Make a bundle of a checkpoint that is loaded; arguments and errors as ``export_bundle``."""
    dialect = find_dialect(target, cpu or host_cpu())
    path, loaded, clips, show = origin.path, origin.checkpoint, origin.clips, origin.show
    detector = find_named_detector(face_detector)
    if detector == Path(HAAR):
        detector = None  # it comes with OpenCV, not in a bundle
    if detector:
        YuNetDetector(detector)  # refuses anything else, before the work begins
    folder = Path(out) if out is not None else Path(f"{path.stem}-{target}-{precision}")
    check_replaceable(folder)
    known = None
    logger.info("%s for %s, dialect %s, in %s", path, target, dialect, precision)
    if precision == "int8" and (ranges is not None or clips is None):
        known = find_ranges(path, ranges)  # an error here saves the work of the graphs
        known.of(dialect)
    with replacing(folder) as draft:
        floats = origin.floats
        made: Calibration | None = None
        if known is not None:
            known.require(floats.hashes(), hash_preprocessing(loaded.spec))
        elif precision == "int8" and clips is not None:
            made = calibrate(
                loaded,
                floats,
                clips.cache,
                dialect=dialect,
                seed=seed or 0,
                progress=lambda done, n: show("calibration", done, n),
            )
            known = made.ranges
        evidence = origin.evidence(MAX_DROP if max_drop is None else max_drop)
        asked: tuple[str, ...] = ()
        if known is not None and float_head:
            found = known.of(dialect)
            head = [layer.name for layer in place(floats.head).layers]
            asked = tuple(name for name in head if name not in found.float_layers)
            kept = dataclasses.replace(found, float_layers=(*found.float_layers, *asked))
            known = known.replace(dialect, kept)
        source = Source(path, loaded, floats, known, detector, origin.no_face)
        assembly = Assembly(source, target, precision, dialect, evidence, made, asked, show)
        return assembly.export(draft, folder, timing)


def _check_options(
    target: Target,
    precision: Precision,
    *,
    calibration: object,
    ranges: object,
    seed: int | None,
    float_head: bool,
    max_drop: float | None,
    cpu: Cpu | None,
) -> None:
    """Refuse what would change nothing.

    Raises:
        OptionError: names it, and what it goes with.
    """
    int8 = precision == "int8"
    draws = int8 and calibration is not None and ranges is None
    for option, given, applies, goes_with in (
        ("ranges", ranges is not None, int8, "--precision int8"),
        ("float-head", float_head, int8, "--precision int8"),
        ("seed", seed is not None, draws, "int8's --calibration, which draws clips"),
        ("max-drop", max_drop is not None, calibration is not None, "--calibration"),
        (
            "cpu",
            cpu is not None,
            int8 and find_target(target).dialect is None,
            "--target onnx --precision int8",
        ),
    ):
        if given and not applies:
            raise OptionError(f"--{option} changes nothing here: it goes with {goes_with}")
