"""One bundle put together in a draft: written, proved, timed, described."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.saturation import Certificate
from mer_calibration.measure.noise import Noise
from mer_calibration.recipe import Recipe
from mer_export.calibration import Calibration, keep_float
from mer_export.errors import GateError, NonFiniteError
from mer_export.manifest import DETECTOR_FILE, Source, describe_bundle, describe_graphs
from mer_export.network.graphs import Graphs
from mer_export.origin import Progress
from mer_export.proof.fallback import choose_float_layers
from mer_export.proof.limits import find_limits
from mer_export.proof.proof import Evidence, Proof, opened, prove
from mer_export.proof.timing import Timing, time_windows
from mer_export.ranges import RANGES_FILE
from mer_export.report import ExportReport
from mer_export.targets import Job, Written, find_target
from mer_runtime import Recognizer
from mer_runtime.bundle import Precision, Target, graph_stem, write_manifest, write_no_face
from mer_runtime.engines import usable_cores
from mer_runtime.golden import Golden, write_golden

logger = logging.getLogger(__name__)


class Assembly:
    """What goes into a bundle, and what it is proved with.

    Args:
        calibration: what was made for this export; None where ranges were given.
        float_head: layers in float only because somebody asked for it.
        show: called with (stage, steps done, steps in all).
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        precision: Precision,
        dialect: DialectName,
        evidence: Evidence,
        calibration: Calibration | None,
        float_head: tuple[str, ...],
        show: Progress,
    ) -> None:
        self.source, self.target, self.precision, self.dialect = source, target, precision, dialect
        self.evidence, self.calibration, self.show = evidence, calibration, show
        self.float_head = float_head
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
                "temperatures": proof.temperatures.to_dict(),
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
            temperatures=proof.temperatures,
            layers=self.calibration.layers if self.calibration else (),
            float_layers=self.keep_float,
            float_head=self.float_head,
            own_temperatures=self.evidence.temperatures,
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
        spec = source.checkpoint.spec
        floats = describe_graphs(source.floats, source, precision)
        return Job(precision, spec, floats, self._quantise, self.dialect, kept)

    def _quantise(self, dialect: DialectName) -> Graphs:
        ranges = self.source.ranges
        assert ranges is not None
        written = Recipe(dict(self.source.floats.items()), ranges).write(dialect)
        self.certificate = written.certificate
        graphs = Graphs(written.encoder, written.head)
        return describe_graphs(graphs, self.source, "int8", dialect, written.certificate)

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
            self.source,
            self.target,
            self.precision,
            written,
            self.keep_float,
            certificate,
            float_head=self.float_head,
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
