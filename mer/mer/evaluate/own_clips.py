"""Scores of a model on one's own labelled clips: any media in a folder, answers in a table.

The table is a CSV file with the columns ``file`` (a path within the folder) and ``label``; other
columns are passed over, but those of ``mer.data.table`` that change what is seen of a clip.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.data.clip import prepare_inputs
from mer.data.corpus import find_corpus
from mer.data.csv_rows import Faults, read_lines
from mer.data.presence import Feed, Presence, choose_feed, make_noise_crops, make_noise_mfcc
from mer.data.table import END, FILE, LABEL, START, VOICE, VOICE_FILE
from mer.errors import CacheError, CorpusError
from mer.evaluate.classifier import OpenModel, open_model
from mer.evaluate.evaluation import Evaluation, score_answers
from mer_runtime.errors import MediaError, MissingModalityError, lacks_memory
from mer_runtime.feeds import Modality, name_modality
from mer_runtime.files import may_be_file
from mer_runtime.inputs.clip import describe_lack
from mer_runtime.inputs.face import FaceDetector, load_detector
from mer_runtime.inputs.listing import list_media
from mer_runtime.inputs.media import read_window
from mer_runtime.jobs import tell_unexpected
from mer_runtime.model import softmax
from mer_runtime.spec import Spec


@dataclass(frozen=True)
class LabelledClip:
    """A row of the table: ``file`` as it is written there, ``target`` the class number."""

    file: str
    path: Path
    target: int


@dataclass(frozen=True)
class ClipAnswer:
    """What a model answered for one clip.

    ``probability`` (0 to 1) is that of ``answer``, at the model's temperature; ``rank`` is how
    many labels were more probable than the right one. ``face`` and ``voice`` say whether the
    clip has that modality, whatever was fed.
    """

    file: str
    label: str
    answer: str
    probability: float
    rank: int
    face: bool
    voice: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**vars(self), "probability": round(self.probability, 6)}


@dataclass(frozen=True)
class FolderEvaluation:
    """A model on a folder's clips.

    Attributes:
        evaluation: the scores of the clips that could be read.
        answers: one a clip, in the table's order.
        failures: file and error of each clip that couldn't be read; they aren't scored.
        unlisted: how many media files of the folder the table doesn't name.
    """

    folder: str
    evaluation: Evaluation
    answers: tuple[ClipAnswer, ...]
    failures: tuple[tuple[str, str], ...]
    unlisted: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what ``mer-eval --json`` prints."""
        described = self.evaluation.to_dict()
        for name in ("split", "fold"):
            del described[name]
        return {
            **described,
            "folder": self.folder,
            "clips": [answer.to_dict() for answer in self.answers],
            "failures": [{"file": file, "error": error} for file, error in self.failures],
            "unlisted": self.unlisted,
        }


def evaluate_folder(
    model: str | Path,
    folder: str | Path,
    table: str | Path,
    *,
    modality: Modality = "both",
    face: Presence | None = None,
    voice: Presence | None = None,
    num_heads: int | None = None,
    labels: tuple[str, ...] | None = None,
    device: str = "cpu",
    face_detector: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FolderEvaluation:
    """Score a model on the clips of ``folder`` that ``table`` names.

    Each clip goes the device's way: its centre window is decoded, the largest face cropped.

    Args:
        model, modality, face, voice, num_heads, labels, device, progress: see
            ``mer.evaluate.evaluation.evaluate_model``.
        face_detector: see ``mer_runtime.Recognizer.load``.

    Raises:
        CorpusError: the table can't be used (see ``read_table``), or no clip could be read.
        CheckpointError, BundleError, FaceDetectorError: a file can't be read.
        MissingModalityError: face and voice are both to be missing.
        TrainingError: there is no such device.
    """
    folder, table = Path(folder), Path(table)
    feed = choose_feed(modality, face, voice)
    opened = open_model(model, num_heads=num_heads, labels=labels, device=device)
    clips = read_table(table, folder, opened.spec.labels)
    detector = load_detector(
        face_detector, bundled=opened.face_detector, trained=opened.spec.video.detector
    )
    answers: list[ClipAnswer] = []
    failures: list[tuple[str, str]] = []
    logits = []
    for done, clip in enumerate(clips, start=1):
        try:
            answer, found = _answer_clip(opened, clip, detector, feed)
        except Exception as error:
            told: Exception = error
            if not isinstance(error, MediaError | MissingModalityError):
                if not lacks_memory(error):
                    raise
                told = tell_unexpected(clip.path, error)
            failures.append((clip.file, " ".join(str(told).split())))
        else:
            answers.append(answer)
            logits.append(found)
        if progress:
            progress(done, len(clips))
    if not logits:
        raise CorpusError(
            f"none of the {len(clips)} clips in {table} can be read: {failures[0][1]}"
        )
    read = {answer.file for answer in answers}
    targets = np.array([clip.target for clip in clips if clip.file in read], np.int64)
    digest = _digest([clip for clip in clips if clip.file in read], opened.spec)
    evaluation = score_answers(opened, np.stack(logits), targets, digest, feed)
    unlisted = count_unlisted(folder, clips)
    return FolderEvaluation(str(folder), evaluation, tuple(answers), tuple(failures), unlisted)


def read_table(table: Path, folder: Path, labels: Sequence[str]) -> tuple[LabelledClip, ...]:
    """Read the right answers; capitals and spaces around a label don't matter.

    Raises:
        CorpusError: the table or the folder is missing, the table isn't CSV in UTF-8 with its
            two columns, is empty, names a file twice or one that isn't there, a part of one or
            another voice, or a label that the model doesn't have.
    """
    if not stat.S_ISDIR(find_corpus(folder)):
        raise CorpusError(f"{folder} is not a folder: name the one that holds the clips")
    rows, _ = read_lines(table, (FILE, LABEL))
    numbers = {label.lower(): number for number, label in enumerate(labels)}
    clips: list[LabelledClip] = []
    lines: dict[Path, int] = {}
    faults = Faults(table)
    for row in rows:
        name, label, path = row.cells[FILE], row.cells[LABEL], folder / row.cells[FILE]
        if not name or not may_be_file(path):
            faults.add(row.number, FILE, f"there is no file {name or '(empty)'} in {folder}")
            continue
        if label.lower() not in numbers:
            told = f"{label or '(empty)'} is none of {', '.join(labels)}"
            faults.add(row.number, LABEL, told)
            continue
        for column in (START, END, VOICE, VOICE_FILE):
            if row.cells.get(column):
                reason = (
                    "whole clips are scored here: run mer-prepare on the table, score its cache"
                )
                faults.add(row.number, column, reason)
        real = path.resolve()
        if real in lines:
            faults.add(row.number, FILE, f"{name} was named in line {lines[real]} already")
        lines[real] = row.number
        clips.append(LabelledClip(name, path, numbers[label.lower()]))
    faults.check()
    return tuple(clips)


def count_unlisted(folder: Path, clips: Sequence[LabelledClip]) -> int:
    """How many media files in ``folder`` and below are none of ``clips``."""
    listed = {clip.path.resolve() for clip in clips}
    return sum(path.resolve() not in listed for path in list_media(folder).clips)


def require_same_clips(first: FolderEvaluation, second: FolderEvaluation) -> None:
    """Refuse to pair two evaluations clip by clip where one read a clip that the other didn't.

    Raises:
        CacheError: their clips differ.
    """
    only = {a.file for a in first.answers} ^ {a.file for a in second.answers}
    if only:
        raise CacheError(
            f"{first.evaluation.model} and {second.evaluation.model} can't be compared clip by "
            f"clip: only one of them could read {min(only)}"
        )


def _answer_clip(
    model: OpenModel, clip: LabelledClip, detector: FaceDetector, feed: Feed
) -> tuple[ClipAnswer, NDArray[np.float32]]:
    """The answer and its logits (classes,)."""
    spec, classifier = model.spec, model.classifier
    window = read_window(clip.path, spec)
    inputs = prepare_inputs(window, spec, detector)
    crops = inputs.faces.crops if inputs.faces and feed.face == "present" else None
    mfcc = inputs.mfcc if feed.voice == "present" else None
    if feed.face == "noise":
        crops = make_noise_crops(spec.video, clip.file)
    if feed.voice == "noise":
        mfcc = make_noise_mfcc(spec.audio, clip.file)
    if crops is None and mfcc is None:
        raise MissingModalityError(f"{clip.path}: {describe_lack(window)} to use")
    logits = classifier.classify(mfcc, None if crops is None else classifier.encode(crops))
    shown = name_modality(face=crops is not None, voice=mfcc is not None)
    probabilities = softmax(logits, model.temperatures.of(shown))
    best = int(logits.argmax())
    answer = ClipAnswer(
        file=clip.file,
        label=spec.labels[clip.target],
        answer=spec.labels[best],
        probability=float(probabilities[best]),
        rank=int((logits > logits[clip.target]).sum()),
        face=inputs.faces is not None,
        voice=inputs.mfcc is not None,
    )
    return answer, logits


def _digest(clips: Sequence[LabelledClip], spec: Spec) -> str:
    """sha256 over files and labels: names the data in a log."""
    lines = (f"{clip.file},{spec.labels[clip.target]}\n" for clip in clips)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
