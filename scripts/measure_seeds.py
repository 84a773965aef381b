"""Ten draws of calibration clips, each put to the gate: is shipping a lottery?

    python scripts/measure_seeds.py cache/ravdess

Calibrates every shipped checkpoint with each seed, on training actors' clips, writes its graphs in
every dialect, and asks the gate about the validation actors' clips, in ONNX Runtime. (An engine
that sums exactly gives the same integers.) Hours on two cores; it goes on where it was stopped.
Writes docs/gate.json and the table made of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import script_options
from make_tables import ROOT, write_all_tables
from mer import Checkpoint, load_checkpoint
from mer.data.cache import Cache
from mer.evaluate.classifier import NetworkClassifier
from mer.weights import shipped_checkpoint
from mer_calibration import DIALECTS, Ranges, Recipe
from mer_calibration.graph.dialects import DialectName
from mer_export.calibration import calibrate
from mer_export.errors import GateError
from mer_export.network.graphs import GraphNetwork, Graphs, export_graphs
from mer_export.proof.gate import check_golden, check_together, check_validation
from mer_export.proof.golden import golden_reference
from mer_export.proof.limits import MAX_DROP, find_limits
from mer_export.proof.validation import Logits, ValidationSet, answer_engine, answer_float
from mer_runtime.console import progress
from mer_runtime.files import write_file
from mer_runtime.golden import Golden
from mer_runtime.proof.self_test import encode_crops, replay
from mer_runtime.spec import Fusion, Spec

DATA = ROOT / "docs" / "gate.json"
SEEDS = 10


def judge(
    ranges: Ranges,
    dialect: DialectName,
    golden: Golden,
    given: tuple[NDArray[np.float32], NDArray[np.float32]],
    exact: Logits,
    answers: Logits,
    targets: NDArray[np.int64],
) -> dict[str, Any]:
    """What the gate says, and the figures that it goes by.

    Args:
        given: logits (n, classes) and features (k, F) of the golden inputs.
        exact, answers: the float model's and the graphs' logits on the validation clips.
    """
    limits = find_limits("int8", "onnx", ranges.of(dialect).noise)
    row: dict[str, Any] = {
        "agreement": {
            shown: round(100 * float((logits.argmax(1) == exact[shown].argmax(1)).mean()), 2)
            for shown, logits in answers.items()
        },
        "refused": "",
    }
    try:
        check_golden(golden, *given, limits)
        reports = [
            check_validation(
                shown, exact[shown], logits, targets, temperature=1, noise=limits.noise[shown]
            )
            for shown, logits in answers.items()
        ]
        check_together(reports, MAX_DROP)
    except GateError as error:
        row["refused"] = str(error)
    return row


class KeptNetwork(GraphNetwork):
    """A network that encodes crops once for all heads behind the same encoder.

    The paper's three fusions ship with one encoder, frozen while they were trained.

    Args:
        kept: features by encoder and crops, filled here.
    """

    def __init__(
        self,
        graphs: Graphs,
        spec: Spec,
        no_face: NDArray[np.float32],
        kept: dict[bytes, NDArray[np.float32]],
    ) -> None:
        super().__init__(graphs, spec, no_face)
        self._kept = kept
        self._key = hashlib.sha256(graphs.encoder.SerializeToString(deterministic=True))

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        key = self._key.copy()
        key.update(faces.tobytes())
        name = key.digest()
        if name not in self._kept:
            self._kept[name] = super().encode(faces)
        return self._kept[name]


def measure_seed(
    checkpoint: Checkpoint,
    floats: Graphs,
    cache: Cache,
    golden: Golden,
    exact: Logits,
    seed: int,
    kept: dict[bytes, NDArray[np.float32]],
) -> list[dict[str, Any]]:
    """A row for each dialect."""
    ranges = calibrate(checkpoint, floats, cache, seed=seed).ranges
    clips = ValidationSet(cache, checkpoint.spec)
    no_face = NetworkClassifier(checkpoint).no_face
    rows = []
    for dialect in DIALECTS:
        written = Recipe(dict(floats.items()), ranges).write(dialect)
        graphs = Graphs(written.encoder, written.head)
        network = KeptNetwork(graphs, checkpoint.spec, no_face, kept)
        features = encode_crops(network, checkpoint.spec, golden)
        logits = replay(network, checkpoint.spec, no_face, golden, features)
        answers = answer_engine(network, clips)
        row = judge(ranges, dialect, golden, (logits, features), exact, answers, clips.targets)
        rows.append({"dialect": dialect, "seed": seed, **row})
    return rows


class Draws:
    """Seeds put to the gate one by one, for one shipped checkpoint after the other."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._made: dict[Fusion, tuple[Checkpoint, Graphs, Golden, Logits]] = {}
        self._seed: int | None = None
        self._kept: dict[bytes, NDArray[np.float32]] = {}

    def measure(self, fusion: Fusion, seed: int) -> list[dict[str, Any]]:
        """A row for each dialect."""
        if fusion not in self._made:
            checkpoint = load_checkpoint(shipped_checkpoint(fusion))
            exact = answer_float(checkpoint, ValidationSet(self.cache, checkpoint.spec))
            golden = golden_reference(checkpoint)
            self._made[fusion] = checkpoint, export_graphs(checkpoint), golden, exact
        checkpoint, floats, golden, exact = self._made[fusion]
        if seed != self._seed:  # another draw has other encoders
            self._seed, self._kept = seed, {}
        found = measure_seed(checkpoint, floats, self.cache, golden, exact, seed, self._kept)
        return [{"fusion": fusion, **row} for row in found]


def read_kept(name: str, corpus: str) -> list[dict[str, Any]]:
    """Rows of docs/gate.json that were measured on this corpus."""
    kept = json.loads(DATA.read_text()) if DATA.is_file() else {}
    rows: list[dict[str, Any]] = kept.get(name, []) if kept.get("corpus") == corpus else []
    return rows


def keep(name: str, rows: Sequence[dict[str, Any]], corpus: str) -> None:
    """Write rows into docs/gate.json, and the tables."""
    kept = json.loads(DATA.read_text()) if DATA.is_file() else {}
    write_file(DATA, json.dumps({**kept, "corpus": corpus, name: list(rows)}, indent=1) + "\n")
    write_all_tables()


@click.command()
@click.argument("cache", type=click.Path(path_type=Path, exists=True))
@click.option("--seeds", default=SEEDS, show_default=True, help="How many draws.")
@script_options.fusions
def main(cache: Path, seeds: int, fusions: tuple[Fusion, ...]) -> None:
    """Calibrate and prove on CACHE (see mer-prepare); rewrite docs/gate.json and its table.

    Each draw is kept as soon as it is measured; called again, it goes on with those that lack.
    """
    opened = Cache.open(cache)
    rows = read_kept("seeds", opened.digest)
    draws = Draws(opened)
    known = {(row["fusion"], row["seed"]) for row in rows}
    every = [(fusion, seed) for seed in range(seeds) for fusion in fusions]
    with progress([one for one in every if one not in known], label="Calibrating") as bar:
        for fusion, seed in bar:
            rows += draws.measure(fusion, seed)
            keep("seeds", rows, opened.digest)


if __name__ == "__main__":
    main()
