"""Recordings decoded and cropped into a cache's clips, by several processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from mer.data.clip import describe_clip, prepare_clip, write_clip
from mer.data.index import CacheRow, clip_path
from mer.data.recording import Recording
from mer_runtime.errors import MediaError, MissingModalityError, OutputError
from mer_runtime.inputs.face import HAAR, FaceDetector, HaarDetector, YuNetDetector, load_detector
from mer_runtime.jobs import tell_unexpected, work_in_parallel
from mer_runtime.spec import Spec


@dataclass(frozen=True)
class Failure:
    """A recording that couldn't be prepared, and why."""

    id: str
    error: str


@dataclass(frozen=True)
class Made:
    """A clip that was written."""

    row: CacheRow
    notes: tuple[str, ...]


def prepare_all(
    recordings: Sequence[Recording],
    out: Path,
    spec: Spec,
    detector: YuNetDetector | HaarDetector,
    jobs: int,
) -> Iterator[Made | Failure]:
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
) -> Made | Failure:
    try:
        record, notes = prepare_clip(recording, spec, detector)
    except (MediaError, MissingModalityError) as error:
        return Failure(recording.id, str(error))
    except Exception as error:  # noqa: BLE001 # the recording's own, whatever it is
        return Failure(recording.id, str(tell_unexpected(recording.path, error)))
    write_clip(clip_path(out, recording.id), record)
    return Made(describe_clip(recording, record), notes)


@dataclass(frozen=True)
class _Worker:
    out: Path
    spec: Spec
    detector: FaceDetector


def _start_worker(out: Path, spec: Spec, detector: str | Path) -> _Worker:
    cv2.setNumThreads(1)  # the processes share the cores already
    return _Worker(out, spec, load_detector(detector))


def _prepare_in_worker(worker: _Worker, recording: Recording) -> Made | Failure:
    return _prepare_file(recording, worker.out, worker.spec, worker.detector)
