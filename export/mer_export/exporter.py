"""Checkpoint to bundle: graphs, calibration, gate, manifest, and one rename at the end."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from mer_calibration.graph.placement import place
from mer_export.assembly import Assembly
from mer_export.calibration import Calibration, calibrate
from mer_export.drafting import check_replaceable, replacing
from mer_export.feeds import hash_preprocessing
from mer_export.manifest import Source
from mer_export.options import ExportOptions
from mer_export.origin import Origin, Progress
from mer_export.proof.limits import MAX_DROP
from mer_export.ranges import find_ranges
from mer_export.report import ExportReport
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
#: Int8 for ONNX Runtime, on this machine's kind of CPU.
DEFAULTS = ExportOptions()


def export_bundle(
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    options: ExportOptions = DEFAULTS,
    *,
    calibration: str | Path | None = None,
    labels: tuple[str, ...] | None = None,
    num_heads: int | None = None,
    spec: Spec | None = None,
    progress: Progress | None = None,
    **named: Any,
) -> ExportReport:
    """Make a bundle from a checkpoint, and prove that it answers like the float model.

    Args:
        checkpoint: ours or the reference implementation's; by default the ``ia`` that ships.
            ``ia``, ``it``, ``lt`` and ``ia-compact`` are those that ship, unless such a file lies
            here.
        out: the bundle's folder, by default ``MODEL-TARGET-PRECISION`` here. A bundle that is
            there already is replaced; another folder with something in it is refused.
        options: what it is made for, and how; by default int8 for ONNX Runtime.
        calibration: a cache of ``mer-prepare``: int8 ranges are made on its training actors'
            clips, and the bundle is proved on its validation actors'. Without it the golden
            inputs alone are replayed.
        labels, num_heads, spec: see ``mer.load_checkpoint``.
        progress: called with (stage, steps done, steps in all); stages as in ``STAGES``.
        named: fields of ``options`` by name, such as ``target="openvino"``, in their place.

    Raises:
        TypeError: ``ExportOptions`` has no such field.
        CheckpointError: the checkpoint can't be loaded.
        CalibrationError: the calibration set is too small or not finite, there are no ranges, or
            they belong to another model.
        CacheError, CorpusError: the cache can't be read, doesn't suit the model, or lacks actors.
        ExportError: there is no such target or CPU, or the network can't be exported.
        FaceDetectorError: ``face_detector`` isn't a YuNet file.
        GateError: the bundle's answers differ from the checkpoint's; nothing is written.
        OptionError: an option is given where it would change nothing.
        MissingExtraError, EngineError: the target's package isn't there, or refuses a graph.
        OutputError: ``out`` can't be written, or another export is writing it.
    """
    options = dataclasses.replace(options, **named)
    options.check(calibrated=calibration is not None)
    options.find_dialect()  # an unknown one is refused before anything is loaded
    show = progress or (lambda stage, done, total: None)
    origin = Origin(
        checkpoint, calibration, num_heads=num_heads, labels=labels, spec=spec, show=show
    )
    return export_origin(origin, out, options)


def export_origin(origin: Origin, out: str | Path | None, options: ExportOptions) -> ExportReport:
    """Make a bundle of a checkpoint that is loaded; arguments and errors as ``export_bundle``."""
    dialect = options.find_dialect()
    target, precision = options.target, options.precision
    path, loaded, clips, show = origin.path, origin.checkpoint, origin.clips, origin.show
    detector = find_named_detector(options.face_detector)
    if detector == Path(HAAR):
        detector = None  # it comes with OpenCV, not in a bundle
    if detector:
        YuNetDetector(detector)  # refuses anything else, before the work begins
    folder = Path(out) if out is not None else Path(f"{path.stem}-{target}-{precision}")
    check_replaceable(folder)
    known = None
    logger.info("%s for %s, dialect %s, in %s", path, target, dialect, precision)
    if precision == "int8" and (options.ranges is not None or clips is None):
        known = find_ranges(path, options.ranges)  # an error here saves the work of the graphs
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
                seed=options.seed or 0,
                progress=lambda done, n: show("calibration", done, n),
            )
            known = made.ranges
        evidence = origin.evidence(MAX_DROP if options.max_drop is None else options.max_drop)
        asked: tuple[str, ...] = ()
        if known is not None and options.float_head:
            found = known.of(dialect)
            head = [layer.name for layer in place(floats.head).layers]
            asked = tuple(name for name in head if name not in found.float_layers)
            kept = dataclasses.replace(found, float_layers=(*found.float_layers, *asked))
            known = known.replace(dialect, kept)
        source = Source(path, loaded, floats, known, detector, origin.no_face)
        assembly = Assembly(source, target, precision, dialect, evidence, made, asked, show)
        return assembly.export(draft, folder, options.timing)
