"""Checkpoint to bundle: graphs, calibration, gate, manifest, and one rename at the end."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mer import load_checkpoint
from mer.data.cache import Cache
from mer.evaluate.classifier import NetworkClassifier
from mer.weights import find_checkpoint
from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.placement import place
from mer_calibration.graph.saturation import Certificate
from mer_calibration.measure.noise import Noise
from mer_calibration.recipe import Recipe
from mer_export.calibration import Calibration, calibrate, keep_float
from mer_export.drafting import check_replaceable, replacing
from mer_export.errors import GateError, NonFiniteError
from mer_export.feeds import hash_preprocessing
from mer_export.manifest import DETECTOR_FILE, Source, describe_bundle
from mer_export.network.graphs import Graphs, export_graphs
from mer_export.proof.fallback import choose_float_layers
from mer_export.proof.golden import golden_reference
from mer_export.proof.limits import MAX_DROP, find_limits
from mer_export.proof.proof import Evidence, Proof, opened, prove
from mer_export.proof.timing import Timing, time_windows
from mer_export.proof.validation import ValidationSet, answer_float
from mer_export.ranges import RANGES_FILE, find_ranges
from mer_export.report import ExportReport
from mer_export.targets import Cpu, Job, Written, find_dialect, find_target, host_cpu
from mer_runtime import Recognizer
from mer_runtime.bundle import Precision, Target, graph_stem, write_manifest, write_no_face
from mer_runtime.engines import usable_cores
from mer_runtime.golden import Golden, write_golden
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

Progress = Callable[[str, int, int], None]


def export_bundle(
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    *,
    target: Target = "onnx",
    precision: Precision = "int8",
    calibration: str | Path | None = None,
    ranges: str | Path | None = None,
    max_drop: float = MAX_DROP,
    cpu: Cpu | None = None,
    face_detector: str | Path | None = None,
    labels: tuple[str, ...] | None = None,
    num_heads: int | None = None,
    spec: Spec | None = None,
    seed: int = 0,
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
        max_drop: points of prec1 that int8 may lose on the validation actors (or one clip).
        cpu: what an int8 bundle for ONNX Runtime is made for, by default this machine's kind.
        face_detector: YuNet's file to put in, by default that of ``$MER_FACE_DETECTOR``.
        labels, num_heads, spec: see ``mer.load_checkpoint``.
        seed: draws the calibration's clips. Answers that are close calls are rounded either way:
            where a gate is missed narrowly, another draw may pass it.
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
        MissingExtraError, EngineError: the target's package isn't there, or refuses a graph.
        OutputError: ``out`` can't be written, or another export is writing it.
    """
    show = progress or (lambda stage, done, total: None)
    dialect = find_dialect(target, cpu or host_cpu())
    path = find_checkpoint(checkpoint)
    loaded = load_checkpoint(path, num_heads=num_heads, labels=labels, spec=spec)
    detector = find_named_detector(face_detector)
    if detector == Path(HAAR):
        detector = None  # it comes with OpenCV, not in a bundle
    if detector:
        YuNetDetector(detector)  # refuses anything else, before the work begins
    folder = Path(out) if out is not None else Path(f"{path.stem}-{target}-{precision}")
    check_replaceable(folder)
    clips = None
    if calibration is not None:
        cache = Cache.open(calibration)
        clips = ValidationSet(cache, loaded.spec)
    known = None
    logger.info("%s for %s, dialect %s, in %s", path, target, dialect, precision)
    if precision == "int8" and (ranges is not None or clips is None):
        known = find_ranges(path, ranges)  # an error here saves the work of the graphs
        known.of(dialect)
    with replacing(folder) as draft:
        show("graphs", 0, 1)
        floats = export_graphs(loaded)
        show("graphs", 1, 1)
        made: Calibration | None = None
        if known is not None:
            known.require(floats.hashes(), hash_preprocessing(loaded.spec))
        elif precision == "int8" and clips is not None:
            made = calibrate(
                loaded,
                floats,
                clips.cache,
                dialect=dialect,
                seed=seed,
                progress=lambda done, n: show("calibration", done, n),
            )
            known = made.ranges
        evidence = Evidence(
            golden=golden_reference(loaded),
            clips=clips,
            reference=answer_float(loaded, clips, lambda done, n: show("reference", done, n))
            if clips is not None
            else None,
            max_drop=max_drop,
            temperature=loaded.temperature,
        )
        if known is not None and float_head:
            head = [layer.name for layer in place(floats.head).layers]
            found = known.of(dialect)
            kept = tuple(dict.fromkeys([*found.float_layers, *head]))
            known = known.replace(dialect, dataclasses.replace(found, float_layers=kept))
        no_face = NetworkClassifier(loaded).no_face
        source = Source(path, loaded, floats, known, detector, no_face)
        exporter = _Exporter(source, target, precision, dialect, evidence, made, show)
        return exporter.export(draft, folder, timing)


class _Exporter:
    def __init__(
        self,
        source: Source,
        target: Target,
        precision: Precision,
        dialect: DialectName,
        evidence: Evidence,
        calibration: Calibration | None,
        show: Progress,
    ) -> None:
        self.source, self.target, self.precision, self.dialect = source, target, precision, dialect
        self.evidence, self.calibration, self.show = evidence, calibration, show
        self.certificate: Certificate | None = None

    @property
    def keep_float(self) -> tuple[str, ...]:
        ranges = self.source.ranges
        return ranges.of(self.dialect).float_layers if ranges is not None else ()

    @property
    def noise(self) -> Noise | None:
        """What the calibration predicts of an int8 graph."""
        ranges = self.source.ranges
        if self.precision != "int8" or ranges is None:
            return None
        return ranges.of(self.dialect).noise

    def export(self, draft: Path, folder: Path, timing: bool) -> ExportReport:
        """Fill the draft of ``folder``; layers go back to float until the gate holds."""
        while True:
            try:
                written, content, proof, timed = self._attempt(draft, timing)
                break
            except NonFiniteError:
                raise
            except GateError as error:
                self._keep_another(error)
            for file in draft.iterdir():
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        logger.info("the gate holds: %s", proof.report.to_dict())
        write_golden(draft, proof.golden)
        write_manifest(
            draft,
            {
                **content,
                "temperature": proof.temperature,
                "doubtful_margins": {k: round(v, 6) for k, v in proof.doubtful.items()},
                "gate": proof.report.to_dict(),
            },
        )
        files = [file for file in draft.iterdir() if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        stems = {graph_stem(Path(name)) for name in written.graphs.values()}
        built = set(written.engine.get("files", {}).values())
        sizes = {f.name: f.stat().st_size for f in files if graph_stem(f) in stems}
        engine_size = sum(size for name, size in sizes.items() if name in built)
        return ExportReport(
            bundle=folder,
            target=self.target,
            precision=self.precision,
            size=size,
            graph_size=sum(sizes.values()) - engine_size,
            engine_size=engine_size,
            float_size=written.float_size,
            gate=proof.report,
            clips=self.source.ranges.clips if self.source.ranges is not None else None,
            temperature=proof.temperature,
            layers=self.calibration.layers if self.calibration else (),
            float_layers=self.keep_float,
            timing=timed,
            face_detector=self.source.detector is not None,
        )

    def _attempt(
        self, draft: Path, timing: bool
    ) -> tuple[Written, dict[str, Any], Proof, Timing | None]:
        written = find_target(self.target).write(self._job(self.precision), draft)
        write_no_face(draft, self.source.no_face)
        if self.source.detector:
            shutil.copyfile(self.source.detector, draft / DETECTOR_FILE)
        if self.precision == "int8" and self.source.ranges is not None:
            self.source.ranges.write(draft / RANGES_FILE)
        content = self._content(written)
        evidence = self.evidence
        with opened(draft, content, evidence.golden, written.stand_in) as (engine, name):
            limits = find_limits(self.precision, self.target, self.noise)
            proof = prove(
                engine,
                name,
                evidence,
                limits,
                self.noise,
                lambda done, n: self.show("gate", done, n),
            )
            native = name == engine.backend.name
            timed = self._time(engine, evidence.golden) if timing and native else None
        return written, content, proof, timed

    def _job(self, precision: Precision) -> Job:
        source = self.source
        kept = self.keep_float if precision == "int8" else ()
        spec, floats = source.checkpoint.spec, source.floats
        return Job(precision, spec, floats, self._quantise, self.dialect, kept)

    def _quantise(self, dialect: DialectName) -> Graphs:
        ranges = self.source.ranges
        assert ranges is not None
        written = Recipe(dict(self.source.floats.items()), ranges).write(dialect)
        self.certificate = written.certificate
        return Graphs(written.encoder, written.head)

    def _keep_another(self, error: GateError) -> None:
        """Return the head or another layer to float, or say that it doesn't help."""
        ranges, clips = self.source.ranges, self.evidence.clips
        if self.calibration is None or ranges is None or clips is None:
            raise error
        chosen = choose_float_layers(self.calibration.layers, self.keep_float)
        if not chosen:
            raise GateError(
                f"{error} (nor did it hold with {len(self.keep_float)} layers in float: draw other "
                "clips with --seed, or take --precision fp16)"
            ) from error
        logger.info("the gate doesn't hold (%s): %s back to float", error, ", ".join(chosen))
        ranges = keep_float(
            self.source.checkpoint,
            self.source.floats,
            clips.cache,
            self.calibration,
            self.dialect,
            (*self.keep_float, *chosen),
            lambda done, n: self.show("bias", done, n),
        )
        self.calibration = dataclasses.replace(self.calibration, ranges=ranges)
        self.source = dataclasses.replace(self.source, ranges=ranges)

    def _content(self, written: Written) -> dict[str, Any]:
        certificate = self.certificate if self.precision == "int8" else None
        return describe_bundle(
            self.source, self.target, self.precision, written, self.keep_float, certificate
        )

    def _time(self, engine: Recognizer, golden: Golden) -> Timing:
        threads = usable_cores()
        checkpoint = self.source.checkpoint
        if self.precision == "fp32":
            return time_windows(checkpoint, golden, engine, None, threads)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            written = find_target(self.target).write(self._job("fp32"), folder)
            content = {**self._content(written), "precision": "fp32", "face_detector": None}
            write_golden(folder, golden)
            write_no_face(folder, self.source.no_face)
            write_manifest(folder, content)
            floats = Recognizer.load(folder, prove=False)  # beside the other's golden answers
            return time_windows(checkpoint, golden, engine, floats, threads)
