"""Measure what ships on an emulated ARM processor against the float model, and write the table.

    python scripts/measure_arm.py CACHE [--clips 60]

Each fusion is exported for ARM, and answers validation clips of CACHE in QEMU's emulation, where
the engine takes the kernels that it takes on such a device. A clip of 15 crops takes some seconds.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import script_options
from emulation import Emulation
from make_tables import ROOT, write_all_tables
from mer import load_checkpoint
from mer.data.cache import Cache
from mer.data.dataset import read_crops
from mer.evaluate.comparison import compare_logits
from mer.weights import shipped_checkpoint
from mer_export.proof.validation import Logits, ValidationSet, answer_float
from mer_runtime.console import Command, progress
from mer_runtime.feeds import MODALITIES
from mer_runtime.files import write_file
from mer_runtime.spec import Fusion
from prove_aarch64 import CPU, install_base
from quantised_exports import export_int8

DATA = ROOT / "docs" / "arm.json"
DRIVER = ROOT / "scripts" / "drive_bundle.py"


@click.command(cls=Command)
@click.argument("cache", type=click.Path(path_type=Path, exists=True))
@click.option("--clips", default=60, show_default=True, help="Validation clips, spread evenly.")
@script_options.fusions
@click.option("--cpu", default=CPU, show_default=True, help="As QEMU names it.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=DATA, help="By default docs/arm.json."
)
def main(cache: Path, clips: int, fusions: tuple[Fusion, ...], cpu: str, out: Path) -> None:
    """Measure on CACHE (see mer-prepare) and rewrite docs/arm.json and its table.

    Rows are written as soon as a model is measured.

    It needs QEMU's user-mode emulator and Debian's sources.

    \b
    Example:
        python scripts/measure_arm.py cache/ravdess
    """
    opened = Cache.open(cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        emulate, _ = install_base(folder)
        machine = emulate(cpu)
        with progress(length=len(fusions) * clips, label="Measuring") as bar:
            for fusion in fusions:
                rows = measure_fusion(fusion, opened, clips, machine, folder, bar.update)
                keep(out, fusion, [{**row, "corpus": opened.digest, "cpu": cpu} for row in rows])
    write_all_tables()


def keep(out: Path, fusion: Fusion, rows: Sequence[dict[str, Any]]) -> None:
    """Write a model's rows in place of those that it had."""
    kept = json.loads(out.read_text())["rows"] if out.is_file() else []
    rest = [row for row in kept if row["fusion"] != fusion]
    write_file(out, json.dumps({"rows": [*rest, *rows]}, indent=1) + "\n")


def measure_fusion(
    fusion: Fusion,
    cache: Cache,
    count: int,
    machine: Emulation,
    folder: Path,
    step: Callable[[int], Any],
) -> list[dict[str, Any]]:
    """One row for each of what is fed."""
    checkpoint = load_checkpoint(shipped_checkpoint(fusion))
    clips = ValidationSet(cache, checkpoint.spec)
    chosen = choose_clips(clips, count)
    clips.rows = [clips.rows[i] for i in chosen]
    clips.targets = clips.targets[chosen]
    bundle = export_int8(fusion, "arm", folder).bundle
    answers = answer_emulated(bundle, clips, machine, folder, step)
    floats = answer_float(checkpoint, clips)
    rows = []
    for modality in MODALITIES:
        logits, reference = answers[modality], floats[modality]
        right = {
            name: 100 * float((values.argmax(axis=1) == clips.targets).mean())
            for name, values in (("engine", logits), ("float", reference))
        }
        found = compare_logits(logits, reference, clips.targets).to_dict()
        rows.append(
            {"fusion": fusion, "modality": modality, "n": len(clips), "prec1": right, **found}
        )
    return rows


def choose_clips(clips: ValidationSet, count: int) -> NDArray[np.int64]:
    """Numbers of ``count`` clips with a face, or of all, spread evenly."""
    shown = [i for i, row in enumerate(clips.rows) if clips.cache.rows[row].has_face]
    places = np.linspace(0, len(shown) - 1, min(count, len(shown))).round().astype(int)
    return np.array([shown[place] for place in places], np.int64)


def answer_emulated(
    bundle: Path,
    clips: ValidationSet,
    machine: Emulation,
    folder: Path,
    step: Callable[[int], Any],
) -> Logits:
    """The bundle's logits (clips, classes) by what is fed; each core emulates some of the clips."""

    def answer(rows: Sequence[int]) -> Logits:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            given, out = Path(name) / "clips.npz", Path(name) / "answers.npz"
            crops = np.stack([read_crops(clips.cache, row, clips.spec) for row in rows])
            mfcc = np.stack([clips.cache.mfcc(row, clips.spec.audio) for row in rows])
            np.savez(given, mfcc=mfcc, crops=crops)
            machine.python(DRIVER, bundle, out, given)
            with np.load(out) as found:
                logits: Logits = {modality: found[modality] for modality in MODALITIES}
        step(len(rows))
        return logits

    cores = len(os.sched_getaffinity(0))
    # A few pieces for each core: starting the emulator takes seconds, too.
    pieces = np.array_split(np.array(clips.rows), min(4 * cores, len(clips)))
    with ThreadPoolExecutor(cores) as pool:
        found = list(pool.map(answer, [piece.tolist() for piece in pieces]))
    return {name: np.concatenate([one[name] for one in found]) for name in MODALITIES}


if __name__ == "__main__":
    main()
