"""Whether a processor computes int8 as it must: one comparison, one row.

``prove_cpus.py`` says what is compared on which processors.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from drive_bundle import COPY_FILE
from emulation import Emulation
from integer_layers import find_integer_layers
from layer_cases import make_cases, make_product_case
from mer_runtime.bundle import load_bundle
from mer_runtime.files import read_graph
from mer_runtime.golden import Golden
from quantised_exports import Exported, put_out_integers
from steps import ROOT, ProofError

SCRIPTS = ROOT / "scripts"
#: Largest |Δlogit| between processors: float32's roundings between integers, and what a step does
#: that they flip in the head.
MOST_DIFFERENCE = 1e-2


@dataclass(frozen=True)
class Row:
    """One thing that was compared.

    Attributes:
        what, engine, cpu: what was run, and where.
        right: whether it came out as it must.
        result: in words.
        seconds: how long it took.
    """

    what: str
    engine: str
    cpu: str
    right: bool
    result: str
    seconds: float


def write_cases(
    exports: Iterable[Exported], folder: Path, *, every: bool = True, plain: bool = False
) -> Path:
    """Write the cases of all their layers into ``folder``; equal layers once.

    Args:
        every: False takes one of the layers that differ in their weights alone.
        plain: with plainly rounded weights, and of each layer's cases one.
    """
    folder.mkdir()
    seen: set[tuple[str, bytes]] = set()
    number = 0
    for exported in exports:
        for graph in exported.graphs.values():
            layers, products = find_integer_layers(graph)
            for layer in layers:
                key = layer.name, layer.weight.tobytes() if every else b""
                if key in seen:
                    continue
                seen.add(key)
                cases = make_cases(layer.round_plainly() if plain else layer)
                for case in [next(cases)] if plain else cases:
                    case.write(folder, number)
                    number += 1
            for product in () if plain else products:
                make_product_case(product).write(folder, number)
                number += 1
    return folder


def drive_layers(what: str, engine: str, emulation: Emulation, cpu: str, folder: Path) -> Row:
    """Run a folder of cases; right where no value is wrong, or for planted weights, where some are.

    Raises:
        ProofError: not all cases were run.
    """
    start = perf_counter()
    said = emulation.python(SCRIPTS / "drive_layers.py", engine, folder).splitlines()
    found = [json.loads(line) for line in said if line.startswith("{")]
    if len(found) != len(list(folder.glob("*.onnx"))):
        raise ProofError(f"{what} on {cpu}: only {len(found)} cases were run")
    wrong = [case for case in found if case["wrong"]]
    result = f"{len(found)} cases, {len(wrong)} of them wrong"
    if wrong:
        worst = max(wrong, key=lambda case: case["wrong"] / case["values"])
        share = 100 * worst["wrong"] / worst["values"]
        kernel = f" ({worst['kernel']})" if worst["kernel"] else ""
        result += f", most in {worst['name']}{kernel}: {share:.2g} % of its values"
    return Row(what, engine, cpu, not wrong, result, perf_counter() - start)


@dataclass(frozen=True)
class Answers:
    """What a bundle gave on one processor."""

    logits: NDArray[np.float32]
    integers: NDArray[np.integer[Any]]
    features: NDArray[np.float32]


def read_answers(exported: Exported, emulation: Emulation, cpu: str) -> Answers:
    """Answer a bundle's golden inputs.

    Raises:
        ProofError: the copy of the encoder that shows integers isn't what the bundle computes.
    """
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "answers.npz"
        if exported.engine == "onnx":
            encoder = onnx.load_from_string(read_graph(load_bundle(exported.bundle).encoder))
            onnx.save(put_out_integers(encoder), out.with_name(COPY_FILE))
        emulation.python(SCRIPTS / "drive_bundle.py", exported.bundle, out)
        with np.load(out) as found:
            if not found["same"]:
                raise ProofError(
                    f"{exported.bundle.name} on {cpu}: with its integers put out, the encoder has "
                    "other features than without"
                )
            return Answers(found["logits"], found["integers"], found["features"])


def compare_answers(
    exported: Exported, first: Answers, emulation: Emulation, cpu: str, *, exact: bool = True
) -> Row:
    """Set a processor's answers against the ``first`` one's and the golden ones (``judge``)."""
    start = perf_counter()
    found = read_answers(exported, emulation, cpu)
    right, result = judge(load_bundle(exported.bundle).golden(), first, found, exact=exact)
    what = f"{exported.fusion}, golden inputs"
    return Row(what, exported.engine, cpu, right, result, perf_counter() - start)


def judge(golden: Golden, first: Answers, found: Answers, *, exact: bool) -> tuple[bool, str]:
    """Whether answers are right, and what they are like in words.

    Args:
        exact: whether the last integers must equal those of ``first``.
    """
    steps = np.abs(found.integers.astype(np.int64) - first.integers)
    logits = float(np.abs(found.logits - first.logits).max())
    off = float(np.abs(found.logits - golden.answers).max())
    equal = not steps.any()
    told = "integers equal" if equal else f"{(steps > 0).sum()} integers differ, by {steps.max()}"
    features = float(np.abs(found.features - first.features).max())
    result = f"{told}; |Δfeature| {features:.1e}, |Δlogit| {logits:.1e}, from the golden {off:.1e}"
    return (equal or not exact) and logits <= MOST_DIFFERENCE and off <= golden.tolerance, result


def format_rows(rows: Sequence[Row]) -> str:
    """``rows`` in columns, what is wrong marked."""
    lines = []
    widths = [max(len(getattr(row, name)) for row in rows) for name in ("what", "engine", "cpu")]
    for row in rows:
        cells = [
            text.ljust(w) for text, w in zip((row.what, row.engine, row.cpu), widths, strict=True)
        ]
        mark = "  " if row.right else "! "
        lines.append(f"{mark}{'  '.join(cells)}  {row.seconds:5.0f} s  {row.result}")
    return "\n".join(lines)
