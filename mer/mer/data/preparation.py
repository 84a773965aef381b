"""A corpus to a cache: decoded and cropped once, by several processes, resumable."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mer.data.classes import Classes
from mer.data.clip import describe_clip, source_bytes
from mer.data.corpus import list_corpus
from mer.data.index import (
    CLIPS_FOLDER,
    INDEX_FILE,
    CacheRow,
    clip_dtype,
    clip_path,
    prepared_fields,
    read_clip,
    read_index,
    read_notes,
    write_index,
)
from mer.data.ravdess import Vocal
from mer.data.recording import Listing, Recording
from mer.data.splits import count_splits
from mer.data.workers import Failure, Made, prepare_all
from mer.errors import CacheError
from mer_runtime.errors import MerWarning, OutputError
from mer_runtime.files import hash_file, is_folder, is_there, make_folder, writing
from mer_runtime.inputs.face import HaarDetector, YuNetDetector, load_detector
from mer_runtime.spec import Spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notes:
    """What is missing in a clip's media, or was mended: sentences."""

    id: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PreparationSummary:
    """What a preparation came to.

    Attributes:
        clips: clips in the cache; ``reused`` of them were there before.
        with_face, with_voice: clips that have this modality.
        faces_found: share of the crops of clips with a face in which it was detected, 0 to 1.
        classes: clips by class; ``splits`` by split.
        failures: recordings that are not in the cache.
        notes: what is missing in the media of clips that are, or was mended.
        warnings: what is wrong with the corpus as a whole.
        passed_over, left_out: recordings and files that weren't taken, by reason (see
            ``mer.data.recording.Listing``).
        size: bytes on disk.
        detector: ``name``, ``file`` and ``sha256`` of the face detector.
    """

    clips: int
    reused: int
    with_face: int
    with_voice: int
    faces_found: float
    classes: Mapping[str, int]
    splits: Mapping[str, int]
    failures: tuple[Failure, ...]
    notes: tuple[Notes, ...]
    warnings: tuple[str, ...]
    passed_over: Mapping[str, int]
    left_out: Mapping[str, int]
    size: int
    detector: dict[str, str]


def prepare_cache(
    source: str | Path,
    out: str | Path,
    *,
    spec: Spec | None = None,
    vocal: Vocal | None = None,
    classes: str | Classes | None = None,
    face_detector: str | Path | None = None,
    jobs: int = 2,
    report: Callable[[Failure | Notes], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparationSummary:
    """Decode and crop every recording of a corpus into ``out``.

    A clip that a former call finished is taken as it is, so an interrupted preparation goes on
    where it stopped. A recording with neither a face nor a voice, or that can't be decoded, is a
    failure: it is left out and tried again by the next call. Called again with other classes or
    splits for the same recordings, it writes the index anew and decodes nothing.

    Args:
        source, vocal, classes: a folder or a table, and what to take of it: see
            ``mer.data.corpus.list_corpus``.
        spec: preprocessing; its detector becomes that of ``face_detector``, its colours RGB, its
            labels the corpus's.
        face_detector: YuNet file or ``haar``; see ``mer_runtime.inputs.face.load_detector``.
        jobs: processes; 1 works in this one.
        report: called with each failure, and each clip's notes, as they occur.
        progress: called with (recordings done, recordings in all).

    Raises:
        CorpusError: there is no recording in ``source``, or a table's cell is wrong.
        CacheError: ``out`` holds something else, or a cache made otherwise or of other
            recordings; or no recording could be prepared.
        FaceDetectorError: the detector's file can't be used.
        OutputError: ``out`` can't be written, or the disk is too small.
    """
    out = Path(out)
    listing = list_corpus(source, vocal=vocal, classes=classes)
    for text in listing.warnings:
        warnings.warn(text, MerWarning, stacklevel=2)
    detector = load_detector(face_detector)
    identity = _identify(detector)
    spec = spec or Spec()
    video = dataclasses.replace(spec.video, detector=detector.name, colour="rgb")
    spec = dataclasses.replace(spec, video=video, labels=listing.labels)
    with writing(out):
        _check_folder(out, spec, identity, {recording.id for recording in listing.recordings})
    preparation = _Preparation(out, spec, identity, listing, report, progress)
    with writing(out):
        preparation.run(detector, jobs, source)
        size = sum(file.stat().st_size for file in (out / CLIPS_FOLDER).iterdir())
        size += (out / INDEX_FILE).stat().st_size
    return preparation.summarise(size)


class _Preparation:
    """One call's work: what was there, what is made, what went wrong."""

    def __init__(
        self,
        out: Path,
        spec: Spec,
        identity: dict[str, str],
        listing: Listing,
        report: Callable[[Failure | Notes], None] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.out, self.spec, self.identity, self.listing = out, spec, identity, listing
        self.report, self.progress = report, progress
        self.rows: dict[str, CacheRow] = {}
        self.failures: list[Failure] = []
        self.notes: dict[str, list[str]] = {}
        self.reused = 0

    def run(self, detector: YuNetDetector | HaarDetector, jobs: int, source: str | Path) -> None:
        """Make the clips that aren't there, and write the index.

        Raises:
            CacheError: none could be prepared.
        """
        pending = self._find_pending()
        logger.info("faces are found by %s; %d clips are kept", detector.name, self.reused)
        make_folder(self.out / CLIPS_FOLDER)
        for part in (self.out / CLIPS_FOLDER).glob(".*.part.npy"):
            part.unlink()
        _check_space(self.out, len(pending) * clip_dtype(self.spec).itemsize)
        try:
            if pending:
                self._write(None)
            for outcome in prepare_all(pending, self.out, self.spec, detector, jobs):
                self._take(outcome)
        except KeyboardInterrupt:
            if pending:
                self._write(None)  # with the notes of what is finished
            raise
        recordings = self.listing.recordings
        if not self.rows:
            raise CacheError(
                f"none of the {len(recordings)} recordings under {source} could be prepared; "
                f"the first: {self.failures[0].error}"
            )
        self.failures.sort(key=lambda failure: failure.id)
        self._write([self.rows[one.id] for one in recordings if one.id in self.rows])

    def summarise(self, size: int) -> PreparationSummary:
        """The summary of a run that ended."""
        rows, labels = list(self.rows.values()), self.spec.labels
        frames = self.spec.video.frames * sum(row.has_face for row in rows)
        counts = Counter(row.emotion for row in rows)
        return PreparationSummary(
            clips=len(rows),
            reused=self.reused,
            with_face=sum(row.has_face for row in rows),
            with_voice=sum(row.has_voice for row in rows),
            faces_found=sum(row.faces_found for row in rows) / frames if frames else 0.0,
            classes={label: counts[number] for number, label in enumerate(labels)},
            splits=count_splits(rows),
            failures=tuple(self.failures),
            notes=tuple(Notes(i, tuple(texts)) for i, texts in sorted(self.notes.items())),
            warnings=self.listing.warnings,
            passed_over=self.listing.passed_over,
            left_out=self.listing.left_out,
            size=size,
            detector=self.identity,
        )

    def _find_pending(self) -> list[Recording]:
        """The recordings that no finished clip is of; the others' rows and notes are taken."""
        before = read_notes(self.out, read_index(self.out))
        pending = []
        for recording in self.listing.recordings:
            row = _read_row(self.out, recording, self.spec)
            if row is None:
                pending.append(recording)
                continue
            self.rows[row.id] = row
            if row.id in before:
                self.notes[row.id] = before[row.id]
        self.reused = len(self.rows)
        return pending

    def _take(self, outcome: Made | Failure) -> None:
        told: Failure | Notes | None = None
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            told = outcome
        else:
            self.rows[outcome.row.id] = outcome.row
            if outcome.notes:
                self.notes[outcome.row.id] = list(outcome.notes)
                told = Notes(outcome.row.id, outcome.notes)
        if told and self.report:
            self.report(told)
        if self.progress:
            done = len(self.rows) + len(self.failures)
            self.progress(done, len(self.listing.recordings))

    def _write(self, rows: list[CacheRow] | None) -> None:
        failures = [dataclasses.asdict(one) for one in self.failures] if rows is not None else []
        write_index(self.out, self.spec, self.identity, rows, failures, self.notes)


def _read_row(out: Path, recording: Recording, spec: Spec) -> CacheRow | None:
    """The row of a clip that is finished and whose recording hasn't changed since."""
    path = clip_path(out, recording.id)
    if not path.exists():
        return None
    try:
        record = read_clip(path, spec)
        unchanged = int(record["source_bytes"][0]) == source_bytes(recording)
    except (CacheError, OSError):  # damaged, or its source vanished: to be made again
        return None
    return describe_clip(recording, record) if unchanged else None


def _identify(detector: YuNetDetector | HaarDetector) -> dict[str, str]:
    path = detector.file
    return {"name": detector.name, "file": path.name, "sha256": hash_file(path)}


def _check_folder(out: Path, spec: Spec, detector: dict[str, str], ids: set[str]) -> None:
    """Refuse a folder that holds anything but the same preparation of the same recordings."""
    if not is_there(out):
        return
    if not is_folder(out):
        raise OutputError(out, "it is a file: name a folder")
    index = read_index(out)
    if index is None:
        if any(out.iterdir()):
            raise CacheError(f"{out} holds other files and no {INDEX_FILE}: name another folder")
        return
    made, wanted = prepared_fields(Spec.from_dict(index["spec"])), prepared_fields(spec)
    differing = [f"{n} is {made[n]}, not {wanted[n]}" for n in made if made[n] != wanted[n]]
    if index["detector"] != detector:
        made_by = index["detector"]
        differing.append(
            f"the face detector is {made_by['file']} ({made_by['sha256'][:12]}…), "
            f"not {detector['file']} ({detector['sha256'][:12]}…)"
        )
    if differing:
        raise CacheError(f"{out} was prepared otherwise ({'; '.join(differing)}): name another")
    others = sorted({path.stem for path in (out / CLIPS_FOLDER).glob("[!.]*.npy")} - ids)
    if others:
        raise CacheError(
            f"{out} holds {len(others)} clips of another corpus, such as {others[0]}: "
            "name another folder"
        )


def _check_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise OutputError(out, f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
