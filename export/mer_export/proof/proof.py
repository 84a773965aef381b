"""A draft bundle put to the test: loaded from disk, compared with the float reference."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer.evaluate.confidence import gather_temperatures, measure_confidence
from mer_calibration.measure.noise import Noise, compare_logits
from mer_export.network.graphs import Graphs
from mer_export.proof.gate import (
    check_finite,
    check_golden,
    check_together,
    check_validation,
)
from mer_export.proof.limits import Limits, find_doubtful_margins
from mer_export.proof.outcome import GateReport, ModalityReport
from mer_export.proof.validation import Logits, ValidationSet, answer_engine
from mer_export.targets import find_target
from mer_export.targets.job import save_graphs
from mer_runtime import Recognizer
from mer_runtime.bundle import NO_FACE_FILE, Target, write_manifest
from mer_runtime.feeds import MODALITIES, Modality, Temperatures
from mer_runtime.golden import Golden, write_golden
from mer_runtime.proof.self_test import encode_crops, replay

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evidence:
    """What a bundle is compared with.

    Attributes:
        golden: golden inputs with the reference's answers.
        clips, reference: validation clips and the reference's logits on them, or None.
        max_drop: points of prec1 that may be lost.
        temperatures: the checkpoint's, which the bundle gets where there are no clips to fit on.
    """

    golden: Golden
    clips: ValidationSet | None
    reference: Logits | None
    max_drop: float
    temperatures: Temperatures


@dataclass(frozen=True)
class Proof:
    """What came out.

    Attributes:
        golden: with the engine's answers.
        temperatures: what its logits are divided by.
        doubtful: by what is shown, how close two classes must be for rounding to decide.
    """

    golden: Golden
    report: GateReport
    temperatures: Temperatures
    doubtful: Mapping[Modality, float]


@contextmanager
def opened(
    draft: Path, content: Mapping[str, Any], golden: Golden, stand_in: Graphs | None
) -> Iterator[tuple[Recognizer, str]]:
    """Load a draft as a device would; a stand-in where its engine can't run here.

    Args:
        content: the manifest's.
        stand_in: graphs for ONNX Runtime that compute the same, for targets that need a GPU.

    Yields:
        The recogniser and what answers.
    """
    target: Target = content["target"]
    if stand_in is None or find_target(target).is_here():
        write_golden(draft, golden)
        write_manifest(draft, content)
        engine = Recognizer.load(draft, prove=False)  # its golden answers are still to come
        yield engine, engine.backend.name
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = save_graphs(dict(stand_in.items()), folder)
        shutil.copyfile(draft / NO_FACE_FILE, folder / NO_FACE_FILE)
        write_golden(folder, golden)
        write_manifest(
            folder,
            {**content, "target": "onnx", "graphs": files, "engine": {}, "face_detector": None},
        )
        engine = Recognizer.load(folder, prove=False)
        yield engine, f"{engine.backend.name} on the same graphs ({target} was not run)"


def prove(
    engine: Recognizer,
    name: str,
    evidence: Evidence,
    limits: Limits,
    predicted: Noise | None,
    progress: Progress | None = None,
) -> Proof:
    """Compare an engine with the float reference.

    Args:
        predicted: what the calibration says that rounding adds.

    Raises:
        GateError: it differs by more than is allowed.
    """
    spec = engine.spec
    features = encode_crops(engine.backend, spec, evidence.golden)
    logits = replay(engine.backend, spec, engine.bundle.no_face(), evidence.golden, features)
    golden, on_golden = check_golden(evidence.golden, logits, features, limits)
    if predicted is not None:
        margins = {shown: one.margin for shown, one in predicted.logits.items()}
    else:
        margins = dict.fromkeys(MODALITIES, compare_logits(logits, golden.reference).margin)
    if evidence.clips is None or evidence.reference is None:
        report = GateReport("golden", name, on_golden)
        return Proof(golden, report, evidence.temperatures, find_doubtful_margins(margins))
    answers = answer_engine(engine, evidence.clips, progress)
    for modality, given in answers.items():
        check_finite(modality, given)
    targets = evidence.clips.targets
    confidence = {shown: measure_confidence(given, targets) for shown, given in answers.items()}
    temperatures = gather_temperatures(confidence)
    reports: list[ModalityReport] = [
        check_validation(
            modality,
            evidence.reference[modality],
            given,
            targets,
            temperature=temperatures.of(modality),
            own_temperature=evidence.temperatures.of(modality),
            max_drop=evidence.max_drop,
            noise=limits.noise.get(modality),
        )
        for modality, given in answers.items()
    ]
    check_together(reports, evidence.max_drop)
    # What was seen on other actors counts where it is more than what was predicted.
    for modality, given in answers.items():
        seen = compare_logits(given, evidence.reference[modality]).margin
        margins[modality] = max(margins[modality], seen)
    report = GateReport("validation", name, on_golden, tuple(reports), evidence.max_drop)
    golden = dataclasses.replace(golden, temperatures=temperatures)
    return Proof(golden, report, temperatures, find_doubtful_margins(margins))
