"""Measure a shipped checkpoint and its int8 bundle on what a device sees, and write the tables.

    python scripts/measure_robustness.py ravdess cache/ravdess

spoils the test actors' recordings before all preprocessing (``robustness.py``), answers them with
both models, and writes docs/robustness.json and the table made of it. Stopped, the same
command goes on after the last corruption that was finished: those lie in the cache till all are.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from make_tables import write_all_tables
from mer.data.cache import Cache
from mer.data.clip import prepare_inputs, read_recording
from mer.data.corpus import find_recordings
from mer.data.index import INT16_SCALE
from mer.data.recording import Recording
from mer.errors import CorpusError
from mer.evaluate.classifier import OpenModel, find_model, open_model
from mer.evaluate.comparison import compare_logits
from mer.evaluate.metrics import ClassificationMetrics
from mer.weights import SHIPPED
from mer_runtime.bundle import MANIFEST_FILE
from mer_runtime.console import Command, progress
from mer_runtime.files import hash_file, write_file
from mer_runtime.inputs.face import FaceDetector, load_detector
from mer_runtime.inputs.media import ClipWindow
from mer_runtime.spec import Fusion, Spec
from robustness import Corruption, list_corruptions
from transcoding import transcode_video

DATA = Path(__file__).resolve().parents[1] / "docs" / "robustness.json"
#: Voices that make the babble.
TALKERS = 8
#: The row of recordings as they are.
CLEAN = Corruption("none", "as recorded")

Logits = list[NDArray[np.float32]]


class Bench:
    """The test actors' recordings and two models; what isn't spoiled is computed once."""

    def __init__(
        self,
        models: Mapping[str, OpenModel],
        recordings: Sequence[Recording],
        detector: FaceDetector,
        seed: int,
    ) -> None:
        self.models, self.recordings = models, recordings
        self.detector, self.seed = detector, seed
        self.spec: Spec = models["float"].spec
        self.targets = np.array([one.emotion for one in recordings], np.int64)
        self._waveforms: list[NDArray[np.float32] | None] = []
        self._mfccs: list[NDArray[np.float32] | None] = []
        self._features: dict[str, list[NDArray[np.float32] | None]] = {n: [] for n in models}
        self._found = 0

    def measure(self, corruption: Corruption, step: Callable[[], None]) -> dict[str, Any]:
        """A row of the table; the first must be that of ``CLEAN``, which fills the memory."""
        logits: dict[str, Logits] = {name: [] for name in self.models}
        found = 0
        for i, recording in enumerate(self.recordings):
            names = (corruption.name, recording.id)
            draw = np.random.default_rng((self.seed, *(zlib.crc32(n.encode()) for n in names)))
            if corruption.modality == "voice":
                answers, seen = self._answer_spoilt_voice(i, corruption, draw), 0
            else:
                answers, seen = self._answer_spoilt_face(i, corruption, draw)
            for name, answer in answers.items():
                logits[name].append(answer)
            found += seen
            step()
        if corruption is CLEAN:
            self._found = found
        return self._describe(
            corruption, logits, self._found if corruption.modality == "voice" else found
        )

    def _answer_spoilt_face(
        self, i: int, corruption: Corruption, draw: np.random.Generator
    ) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Logits by model, and in how many frames a face was found."""
        recording, rate = self.recordings[i], self.spec.audio.sample_rate
        with tempfile.TemporaryDirectory() as folder:
            if corruption.bitrate and recording.path.suffix != ".wav":
                thin = Path(folder) / "thin.mp4"
                transcode_video(recording.path, thin, corruption.bitrate)
                recording = dataclasses.replace(recording, path=thin)
            window = corruption.apply(read_recording(recording, self.spec), rate, draw)
        detector = self.detector
        if corruption.detector:
            detector = corruption.detector(detector, draw)
        inputs = prepare_inputs(window, self.spec, detector)
        if corruption is CLEAN:
            self._waveforms.append(window.waveform)
            self._mfccs.append(inputs.mfcc)
        answers = {}
        for name, model in self.models.items():
            faces = inputs.faces
            features = model.classifier.encode(faces.crops) if faces else None
            if corruption is CLEAN:
                self._features[name].append(features)
            answers[name] = self._classify(model, self._mfccs[i], features)
        return answers, int(inputs.faces.found.sum()) if inputs.faces else 0

    def _answer_spoilt_voice(
        self, i: int, corruption: Corruption, draw: np.random.Generator
    ) -> dict[str, NDArray[np.float32]]:
        waveform, mfcc = self._waveforms[i], self._mfccs[i]
        if waveform is not None and corruption.waveform:
            rate = self.spec.audio.sample_rate
            window = ClipWindow(None, corruption.waveform(waveform, rate, draw), 0.0)
            mfcc = prepare_inputs(window, self.spec, self.detector).mfcc
        return {
            name: self._classify(model, mfcc, self._features[name][i])
            for name, model in self.models.items()
        }

    def _classify(
        self,
        model: OpenModel,
        mfcc: NDArray[np.float32] | None,
        features: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        # Zeros, not None: a clip that has lost both is answered, too.
        silence = np.zeros(self.spec.audio.shape, np.float32)
        return model.classifier.classify(silence if mfcc is None else mfcc, features)

    def _describe(
        self, corruption: Corruption, logits: Mapping[str, Logits], found: int
    ) -> dict[str, Any]:
        frames = len(self.recordings) * self.spec.video.frames
        row: dict[str, Any] = {
            "name": corruption.name,
            "what": corruption.what,
            "n": len(self.recordings),
            "frames_with_face": round(100 * found / frames, 2),
        }
        stacked = {name: np.stack(values) for name, values in logits.items()}
        for name, values in stacked.items():
            metrics = ClassificationMetrics(values.shape[1])
            metrics.update(values, self.targets)
            scores = metrics.compute()
            row[name] = {
                "prec1": scores.prec1,
                "prec1_interval": list(metrics.compute_intervals()["prec1"]),
                "prec5": scores.prec5,
                "uar": scores.uar,
            }
        compared = compare_logits(stacked["int8"], stacked["float"], self.targets)
        return {**row, **compared.to_dict()}


@click.command(cls=Command)
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--fusion", type=click.Choice(SHIPPED), default="ia", show_default=True)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="The int8 bundle.  [default: the one that ships, if one does]",
)
@click.option(
    "--face-detector",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YuNet model.  [default: $MER_FACE_DETECTOR, else the one that ships]",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
def main(
    corpus: Path,
    cache: Path,
    fusion: Fusion,
    bundle: Path | None,
    face_detector: Path | None,
    seed: int,
) -> None:
    """Spoil CORPUS's test clips and rewrite docs/robustness.{json,md}.

    CACHE (see mer-prepare) says which clips test, and lends training actors' voices as babble.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows, digest = measure_fusion(corpus, cache, fusion, bundle, face_detector, seed)
    kept: list[dict[str, Any]] = []
    if DATA.is_file():
        before = json.loads(DATA.read_text("utf-8"))
        if before["corpus"] == digest:
            kept = [row for row in before["rows"] if row["fusion"] != fusion]
    merged = sorted(kept + rows, key=lambda row: SHIPPED.index(row["fusion"]))
    described = {"corpus": digest, "rows": merged}
    write_file(DATA, (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode())
    write_all_tables()


def measure_fusion(
    corpus: Path,
    cache: Path,
    fusion: Fusion,
    bundle: Path | None = None,
    face_detector: Path | None = None,
    seed: int = 1,
) -> tuple[list[dict[str, Any]], str]:
    """All rows of a fusion, and the cache's digest.

    Raises:
        CorpusError: a test clip of the cache isn't in the corpus.
    """
    opened = Cache.open(cache)
    names = {"float": fusion, "int8": bundle or f"{fusion}-int8"}
    models = {key: open_model(name) for key, name in names.items()}
    for model in models.values():
        opened.require(model.spec)
    found = {one.id: one for one in find_recordings(corpus)}
    ids = [opened.rows[row].id for row in opened.select("test")]
    missing = [one for one in ids if one not in found]
    if missing:
        raise CorpusError(f"{corpus} lacks {len(missing)} clips of {cache}, such as {missing[0]}")
    bench = Bench(models, [found[one] for one in ids], load_detector(face_detector), seed)
    corruptions = [CLEAN, *list_corruptions(read_talkers(opened, seed))]
    key = {
        "corpus": opened.digest,
        "seed": seed,
        **{name: hash_model(find_model(model)) for name, model in names.items()},
    }
    work = cache / f"robustness-{fusion}.json"
    rows = read_work(work, key)
    todo = [one for one in corruptions if one.name not in rows]
    if todo and todo[0] is not CLEAN:
        todo.insert(0, CLEAN)  # nothing it answered before is in memory
    with progress(length=len(todo) * len(ids), label=f"Spoiling, {fusion}") as bar:
        for corruption in todo:
            row = bench.measure(corruption, lambda: bar.update(1))
            rows[corruption.name] = {"fusion": fusion, **row}
            text = json.dumps({"key": key, "rows": rows}, ensure_ascii=False)
            write_file(work, text.encode())
    return [rows[one.name] for one in corruptions], opened.digest


def read_talkers(cache: Cache, seed: int) -> NDArray[np.float32]:
    """(n, samples) float32 voices of training actors, each with its peak at 1."""
    rows = [row for row in cache.select("train") if cache.rows[row].has_voice]
    chosen = np.random.default_rng(seed).choice(rows, min(TALKERS, len(rows)), replace=False)
    waveforms = np.stack([cache.waveform(int(row)) for row in chosen])
    return waveforms.astype(np.float32) / np.float32(INT16_SCALE)


def read_work(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """Rows by name that an earlier call left for the same clips, models and seed."""
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text("utf-8"))
    rows: dict[str, Any] = kept["rows"] if kept["key"] == key else {}
    return rows


def hash_model(path: Path) -> str:
    """sha256 of a checkpoint, or of a bundle's manifest, which holds those of its files."""
    file = path / MANIFEST_FILE if path.is_dir() else path
    return hash_file(file)


if __name__ == "__main__":
    main()
