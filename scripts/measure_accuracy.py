"""Measure every shipped checkpoint in every engine that runs here, and write the tables.

    make accuracy CACHE=cache/ravdess

exports each fusion to each target and precision, compares the bundle with the float checkpoint on
the test actors' clips, and writes docs/accuracy.json and the tables made of it. To tell how much is
little, the float model is compared with itself, too, on pixels that are off by one.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import script_options
from make_tables import ROOT, write_all_tables
from mer import load_checkpoint
from mer.data.cache import Cache
from mer.evaluate.classifier import Classifier, NetworkClassifier
from mer.evaluate.comparison import compare_logits
from mer.evaluate.confidence import expected_calibration_error
from mer.evaluate.metrics import ClassificationMetrics
from mer.weights import SHIPPED, shipped_checkpoint
from mer_export import ExportOptions, export_bundle
from mer_export.proof.limits import signal_to_noise
from mer_export.proof.validation import ValidationSet, answer_engine
from mer_runtime import Recognizer
from mer_runtime.bundle import PRECISIONS, Precision, Target
from mer_runtime.console import progress
from mer_runtime.feeds import MODALITIES
from mer_runtime.spec import Fusion, Spec

DATA = ROOT / "docs" / "accuracy.json"
TARGETS: tuple[Target, ...] = ("onnx", "openvino")
Pair = tuple[Target, Precision]
PAIRS: list[Pair] = [(target, precision) for target in TARGETS for precision in PRECISIONS]
#: What tells rows apart.
KEYS = {
    "rows": ("fusion", "target", "precision", "modality"),
    "pixels": ("fusion", "draw", "modality"),
}
#: How often the float model is asked with other pixels: each time others are off.
DRAWS = 5


@click.command()
@click.argument("cache", type=click.Path(path_type=Path, exists=True))
@script_options.fusions
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=PRECISIONS,
    help="Measure this one alone and keep the rows of the others.",
)
def main(cache: Path, fusions: tuple[Fusion, ...], precisions: tuple[Precision, ...]) -> None:
    """Measure on CACHE (see mer-prepare) and rewrite docs/accuracy.json and its tables."""
    opened = Cache.open(cache)
    made: dict[str, list[dict[str, Any]]] = {"rows": [], "pixels": []}
    pairs = [pair for pair in PAIRS if pair[1] in precisions]
    draws = DRAWS if "fp32" in precisions else 0
    with progress(length=len(fusions) * (len(pairs) + draws), label="Measuring") as bar:
        for fusion in fusions:
            made["rows"] += measure_fusion(fusion, pairs, opened, lambda: bar.update(1))
            if not draws:
                continue
            made["pixels"] += measure_pixels(fusion, opened, lambda: bar.update(1))
    kept = json.loads(DATA.read_text()) if DATA.is_file() else {}
    if kept.get("corpus") == opened.digest:
        for name, rows in made.items():
            again = {tuple(row[key] for key in KEYS[name]) for row in rows}
            rows += [
                row for row in kept.get(name, []) if tuple(row[k] for k in KEYS[name]) not in again
            ]
    for rows in made.values():
        rows.sort(key=order_row)
    DATA.write_text(json.dumps({"corpus": opened.digest, **made}, indent=1) + "\n")
    write_all_tables()


def order_row(row: dict[str, Any]) -> tuple[int, int]:
    """By fusion, then engine and precision; rows of these stay as they were."""
    pair = (row.get("target"), row.get("precision"))
    return SHIPPED.index(row["fusion"]), PAIRS.index(pair) if pair in PAIRS else 0


def measure_fusion(
    fusion: Fusion, pairs: Sequence[Pair], cache: Cache, step: Callable[[], Any]
) -> list[dict[str, Any]]:
    """One row for each target and precision, and what was fed."""
    checkpoint = load_checkpoint(shipped_checkpoint(fusion))
    clips = ValidationSet(cache, checkpoint.spec, "test")
    exact = _Remembering(NetworkClassifier(checkpoint))
    reference = answer_engine(exact, clips)
    rows = []
    for target, precision in pairs:
        with tempfile.TemporaryDirectory() as folder:
            report = export_bundle(
                shipped_checkpoint(fusion),
                Path(folder) / "bundle",
                ExportOptions(target=target, precision=precision, timing=False),
            )
            recognizer = Recognizer.load(report.bundle)
            given = _Remembering(recognizer)
            answers = answer_engine(given, clips)
            temperatures = recognizer.bundle.temperatures
            margins = recognizer.bundle.doubtful_margins
        for modality in MODALITIES:
            logits, floats = answers[modality], reference[modality]
            scores = {}
            for name, values in (("engine", logits), ("float", floats)):
                metrics = ClassificationMetrics(values.shape[1])
                metrics.update(values, clips.targets)
                found = metrics.compute()
                scores[name] = {"prec1": found.prec1, "prec5": found.prec5, "uar": found.uar}
                scores[name]["ece"] = expected_calibration_error(
                    values, clips.targets, temperature=temperatures.of(modality)
                )
            rows.append(
                {
                    "fusion": fusion,
                    "target": target,
                    "precision": precision,
                    "modality": modality,
                    "n": len(clips),
                    "graph_size": report.graph_size,
                    "features_sqnr": round(signal_to_noise(exact.features, given.features), 2),
                    **count_unsettled(logits, floats, margins[modality]),
                    **scores,
                    **compare_logits(logits, floats, clips.targets).to_dict(),
                }
            )
        step()
    return rows


def count_unsettled(
    logits: NDArray[np.float32], floats: NDArray[np.float32], margin: float
) -> dict[str, int]:
    """How many answers (n, classes) rounding may have decided, and of those that differ from the
    float model's, how many."""
    best = np.sort(logits, axis=1)[:, -2:]
    unsettled = best[:, 1] - best[:, 0] <= margin
    differing = logits.argmax(axis=1) != floats.argmax(axis=1)
    return {
        "unsettled": int(unsettled.sum()),
        "differing": int(differing.sum()),
        "differing_unsettled": int((differing & unsettled).sum()),
    }


def measure_pixels(fusion: Fusion, cache: Cache, step: Callable[[], Any]) -> list[dict[str, Any]]:
    """The float model on noisy pixels against itself, one row for each draw and modality."""
    path = shipped_checkpoint(fusion)
    clips = ValidationSet(cache, load_checkpoint(path).spec, "test")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        report = export_bundle(
            path,
            Path(folder) / "bundle",
            ExportOptions(target="onnx", precision="fp32", timing=False),
        )
        recognizer = Recognizer.load(report.bundle)
        plain = answer_engine(recognizer, clips)
        for draw in range(DRAWS):
            noisy = answer_engine(_OffByOne(recognizer, draw), clips)
            for modality in ("both", "video"):
                found = compare_logits(noisy[modality], plain[modality], clips.targets).to_dict()
                rows.append({"fusion": fusion, "draw": draw, "modality": modality, **found})
            step()
    return rows


class _Remembering:
    """A classifier that keeps the features it gave."""

    def __init__(self, inner: Classifier) -> None:
        self.inner = inner
        self.given: list[NDArray[np.float32]] = []

    @property
    def spec(self) -> Spec:
        return self.inner.spec

    @property
    def features(self) -> NDArray[np.float32]:
        """Of all crops (n, F), in order."""
        return np.concatenate(self.given)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = self.inner.encode(faces)
        self.given.append(features.copy())
        return features

    def classify(
        self, mfcc: NDArray[np.float32] | None, features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        return self.inner.classify(mfcc, features)


class _OffByOne(_Remembering):
    """A classifier whose camera adds -1, 0 or 1 of 255 to each value of a pixel, by chance."""

    def __init__(self, inner: Classifier, seed: int) -> None:
        super().__init__(inner)
        self.generator = np.random.default_rng(seed)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        noise = self.generator.integers(-1, 2, faces.shape, np.int16)
        return super().encode(np.clip(faces + noise, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
