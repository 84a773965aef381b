"""Recordings to a cache: decoded and cropped once, by several processes, resumable."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from mer.data.cache import (
    CLIPS_FOLDER,
    INDEX_FILE,
    CacheRow,
    clip_dtype,
    clip_path,
    prepared_fields,
    read_clip,
    read_index,
    write_index,
)
from mer.data.clip import describe_clip, prepare_clip, source_bytes, write_clip
from mer.data.corpus import Recording, list_corpus
from mer.errors import CacheError
from mer_runtime.errors import MediaError, MissingModalityError, OutputError
from mer_runtime.files import hash_file, make_folder, writing
from mer_runtime.inputs.face import HAAR, FaceDetector, HaarDetector, YuNetDetector, load_detector
from mer_runtime.jobs import tell_unexpected, work_in_parallel
from mer_runtime.spec import Spec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A recording that couldn't be prepared, and why."""

    id: str
    error: str


@dataclass(frozen=True)
class PreparationSummary:
    """What a preparation came to.

    Attributes:
        clips: clips in the cache; ``reused`` of them were there before.
        with_face, with_voice: clips that have this modality.
        faces_found: share of the crops of clips with a face in which it was detected, 0 to 1.
        failures: recordings that are not in the cache.
        songs, foreign: media files passed over, and ``left_out`` other files by reason (see
            ``mer.data.corpus.Listing``).
        size: bytes on disk.
        detector: ``name``, ``file`` and ``sha256`` of the face detector.
    """

    clips: int
    reused: int
    with_face: int
    with_voice: int
    faces_found: float
    failures: tuple[Failure, ...]
    songs: int
    foreign: int
    left_out: Mapping[str, int]
    size: int
    detector: dict[str, str]


def prepare_cache(
    root: Path,
    out: Path,
    *,
    spec: Spec | None = None,
    face_detector: Path | None = None,
    jobs: int = 2,
    report: Callable[[Failure], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparationSummary:
    """Decode and crop every recording under ``root`` (see ``mer.data.corpus``) into ``out``.

    A clip that a former call finished is taken as it is, so an interrupted preparation goes on
    where it stopped. A recording with neither a face nor a voice, or that can't be decoded, is a
    failure: it is left out and tried again by the next call.

    Args:
        spec: preprocessing; its detector becomes that of ``face_detector``, its colours RGB.
        face_detector: YuNet file or ``haar``; see ``mer_runtime.inputs.face.load_detector``.
        jobs: processes; 1 works in this one.
        report: called with each failure as it occurs.
        progress: called with (recordings done, recordings in all).

    Raises:
        CorpusError: there is no recording under ``root``.
        CacheError: ``out`` holds something else, or a cache made otherwise or of other
            recordings; or no recording could be prepared.
        FaceDetectorError: the detector's file can't be used.
        OutputError: ``out`` can't be written, or the disk is too small.
    """
    listing = list_corpus(root)
    detector = load_detector(face_detector)
    identity = _identify(detector)
    spec = spec or Spec()
    video = dataclasses.replace(spec.video, detector=detector.name, colour="rgb")
    spec = dataclasses.replace(spec, video=video)
    _check_folder(out, spec, identity, {recording.id for recording in listing.recordings})
    rows: dict[str, CacheRow] = {}
    pending = []
    for recording in listing.recordings:
        row = _read_row(out, recording, spec)
        if row is None:
            pending.append(recording)
        else:
            rows[recording.id] = row
    reused = len(rows)
    logger.info("faces are found by %s; %d clips are kept from before", detector.name, reused)
    failures = []
    with writing(out):
        make_folder(out / CLIPS_FOLDER)
        for part in (out / CLIPS_FOLDER).glob(".*.part.npy"):
            part.unlink()
        _check_space(out, len(pending) * clip_dtype(spec).itemsize)
        if pending:
            write_index(out, spec, identity, None, [])
        total = len(listing.recordings)
        for outcome in _prepare_all(pending, out, spec, detector, jobs):
            if isinstance(outcome, Failure):
                failures.append(outcome)
                if report:
                    report(outcome)
            else:
                rows[outcome.id] = outcome
            if progress:
                progress(len(rows) + len(failures), total)
        if not rows:
            raise CacheError(
                f"none of the {total} recordings under {root} could be prepared; "
                f"the first: {failures[0].error}"
            )
        failures.sort(key=lambda failure: failure.id)
        listed = [rows[recording.id] for recording in listing.recordings if recording.id in rows]
        write_index(out, spec, identity, listed, [dataclasses.asdict(f) for f in failures])
        size = sum(file.stat().st_size for file in (out / CLIPS_FOLDER).iterdir())
        size += (out / INDEX_FILE).stat().st_size
    frames = spec.video.frames * sum(row.has_face for row in listed)
    return PreparationSummary(
        clips=len(listed),
        reused=reused,
        with_face=sum(row.has_face for row in listed),
        with_voice=sum(row.has_voice for row in listed),
        faces_found=sum(row.faces_found for row in listed) / frames if frames else 0.0,
        failures=tuple(failures),
        songs=listing.songs,
        foreign=listing.foreign,
        left_out=listing.left_out,
        size=size,
        detector=identity,
    )


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
    if not out.exists():
        return
    if not out.is_dir():
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


def _prepare_all(
    recordings: list[Recording],
    out: Path,
    spec: Spec,
    detector: YuNetDetector | HaarDetector,
    jobs: int,
) -> Iterator[CacheRow | Failure]:
    """Rows and failures as they come; no order."""
    if jobs == 1 or len(recordings) <= 1:
        for recording in recordings:
            yield _prepare_file(recording, out, spec, detector)
        return
    start = partial(_start_worker, out, spec, HAAR if detector.name == HAAR else detector.file)
    for outcome in work_in_parallel(recordings, jobs, start, _prepare_in_worker):
        if isinstance(outcome.error, OutputError):
            raise outcome.error  # the disk is full: so it is for the next
        if outcome.error is not None:
            yield Failure(outcome.item.id, str(outcome.error))
        else:
            yield outcome.value


def _prepare_file(
    recording: Recording, out: Path, spec: Spec, detector: FaceDetector
) -> CacheRow | Failure:
    try:
        record = prepare_clip(recording, spec, detector)
    except (MediaError, MissingModalityError) as error:
        return Failure(recording.id, str(error))
    except Exception as error:  # noqa: BLE001 # the recording's own, whatever it is
        return Failure(recording.id, str(tell_unexpected(recording.path, error)))
    write_clip(clip_path(out, recording.id), record)
    return describe_clip(recording, record)


@dataclass(frozen=True)
class _Worker:
    out: Path
    spec: Spec
    detector: FaceDetector


def _start_worker(out: Path, spec: Spec, detector: str | Path) -> _Worker:
    cv2.setNumThreads(1)  # the processes share the cores already
    return _Worker(out, spec, load_detector(detector))


def _prepare_in_worker(worker: _Worker, recording: Recording) -> CacheRow | Failure:
    return _prepare_file(recording, worker.out, worker.spec, worker.detector)
