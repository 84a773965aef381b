"""Measure every shipped checkpoint in every engine that runs here, and write the tables.

    make accuracy CACHE=cache/ravdess

exports each fusion to each target and precision, compares the bundle with the float checkpoint on
the test actors' clips, and writes docs/accuracy.json and the tables made of it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
from make_tables import ROOT, write_all_tables

from mer import load_checkpoint
from mer.cache import Cache
from mer.comparison import compare_logits
from mer.confidence import expected_calibration_error
from mer.metrics import ClassificationMetrics
from mer.weights import shipped_checkpoint
from mer_export import export_bundle
from mer_export.validation import MODALITIES, ValidationSet, answer_engine, answer_float
from mer_runtime import Recognizer
from mer_runtime.bundle import PRECISIONS, Target
from mer_runtime.console import progress
from mer_runtime.spec import FUSIONS, Fusion

DATA = ROOT / "docs" / "accuracy.json"
TARGETS: tuple[Target, ...] = ("onnx", "openvino")
PAIRS = [(target, precision) for target in TARGETS for precision in PRECISIONS]


@click.command()
@click.argument("cache", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--fusion",
    "fusions",
    type=click.Choice(FUSIONS),
    multiple=True,
    default=FUSIONS,
    help="Measure this one alone and keep the rows of the others.",
)
def main(cache: Path, fusions: tuple[Fusion, ...]) -> None:
    """Measure on CACHE (see mer-prepare) and rewrite docs/accuracy.json and its tables."""
    opened = Cache.open(cache)
    rows: list[dict[str, Any]] = []
    with progress(length=len(fusions) * len(PAIRS), label="Measuring") as bar:
        for fusion in fusions:
            rows += measure_fusion(fusion, opened, lambda: bar.update(1))
    if DATA.is_file():
        kept = json.loads(DATA.read_text())
        if kept["corpus"] == opened.digest:
            rows += [row for row in kept["rows"] if row["fusion"] not in fusions]
    rows.sort(key=lambda row: FUSIONS.index(row["fusion"]))
    DATA.write_text(json.dumps({"corpus": opened.digest, "rows": rows}, indent=1) + "\n")
    write_all_tables()


def measure_fusion(fusion: Fusion, cache: Cache, step: Any) -> list[dict[str, Any]]:
    """One row for each target and precision."""
    checkpoint = load_checkpoint(shipped_checkpoint(fusion))
    clips = ValidationSet(cache, checkpoint.spec, "test")
    reference = answer_float(checkpoint, clips)
    rows = []
    for target, precision in PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            report = export_bundle(
                shipped_checkpoint(fusion),
                Path(folder) / "bundle",
                target=target,
                precision=precision,
                timing=False,
            )
            recognizer = Recognizer.load(report.bundle)
            answers = answer_engine(recognizer, clips)
            temperature = recognizer.bundle.temperature
        for modality in MODALITIES:
            logits, floats = answers[modality], reference[modality]
            scores = {}
            for name, values in (("engine", logits), ("float", floats)):
                metrics = ClassificationMetrics(values.shape[1])
                metrics.update(values, clips.targets)
                found = metrics.compute()
                scores[name] = {"prec1": found.prec1, "prec5": found.prec5, "uar": found.uar}
                scores[name]["ece"] = expected_calibration_error(
                    values, clips.targets, temperature=temperature
                )
            rows.append(
                {
                    "fusion": fusion,
                    "target": target,
                    "precision": precision,
                    "modality": modality,
                    "n": len(clips),
                    "graph_size": report.graph_size,
                    **scores,
                    **compare_logits(logits, floats, clips.targets).to_dict(),
                }
            )
        step()
    return rows


if __name__ == "__main__":
    main()
