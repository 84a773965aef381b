"""A cache's files: ``cache.json``, the index, and a record for each clip."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.data.splits import FOLDS, PARTS
from mer.errors import CacheError
from mer_runtime.documents import read_json
from mer_runtime.files import write_file
from mer_runtime.spec import RAVDESS_LABELS, Spec

INDEX_FILE = "cache.json"
CLIPS_FOLDER = "clips"
FORMAT_VERSION = 1

#: Bytes of a clip's name: a file's, with its suffix.
LONGEST_ID = 200

#: What a waveform's full scale is stored as.
INT16_SCALE = 32_768


@dataclass(frozen=True)
class CacheRow:
    """What the index knows of a clip; the fields mean what they mean in ``Recording``.

    ``faces_found`` of the clip's crops show a face that was detected in that very frame.
    """

    id: str
    emotion: int
    actor: int
    intensity: int
    has_face: bool
    has_voice: bool
    faces_found: int
    split: str = ""
    fold: int = 0


def read_row(row: Any, spec: Spec) -> CacheRow:
    """A clip of the index.

    Raises:
        TypeError, ValueError: its fields aren't those of a clip, or its id is no file's name.
    """
    read = CacheRow(**row)
    for field in dataclasses.fields(CacheRow):
        value = getattr(read, field.name)
        if type(value).__name__ != field.type:
            raise TypeError(f"{field.name} of a clip is {value!r}"[:200])
    if Path(read.id).name != read.id or len(read.id) > LONGEST_ID or not read.id.isprintable():
        raise ValueError(f"a clip is called {read.id!r}"[:200])
    if not 0 <= read.emotion < len(spec.labels):
        raise ValueError(f"{read.id} has no emotion of the labels")
    if not 0 <= read.faces_found <= spec.video.frames:
        raise ValueError(f"{read.id} has more faces than frames")
    if read.split not in ("", *PARTS) or not 0 <= read.fold <= FOLDS:
        raise ValueError(f"{read.id} is of no split")
    return read


def clip_dtype(spec: Spec) -> np.dtype[np.void]:
    """The record that a clip's file holds.

    ``crops`` are RGB; a missing modality is zeros. ``waveform`` is scaled so that the clip's peak
    fills int16, ``level`` being the amplitude of its full scale: RAVDESS's quiet voices peak at
    0.02, where plain int16 would put up to 28 units of rounding noise into an MFCC; so it is 0.2.
    ``found`` says in which frames a face was detected. ``source_bytes`` is the size of the files
    it was made from, by which a changed recording is noticed.
    """
    return np.dtype(
        [
            ("crops", np.uint8, spec.video.shape),
            ("waveform", np.int16, (spec.audio.samples,)),
            ("level", np.float32),
            ("found", np.bool_, (spec.video.frames,)),
            ("has_face", np.bool_),
            ("has_voice", np.bool_),
            ("source_bytes", np.int64),
        ]
    )


def clip_path(cache: Path, clip_id: str) -> Path:
    """The file of one clip."""
    return cache / CLIPS_FOLDER / f"{clip_id}.npy"


def read_clip(path: Path, spec: Spec) -> NDArray[np.void]:
    """Map a clip's record, shape (1,), copy-on-write: writing to it leaves the file alone.

    Raises:
        CacheError: the file is missing, damaged, or holds another record.
    """
    try:
        record = np.lib.format.open_memmap(path, mode="c")  # type: ignore[no-untyped-call]
    except Exception as error:  # the header is Python's source, and so is what goes wrong with it
        raise CacheError(
            f"{path} is missing or damaged: run mer-prepare again, which makes only that clip"
        ) from error
    if record.shape != (1,) or record.dtype != clip_dtype(spec):
        raise CacheError(f"{path} is not a clip of this cache: delete it, run mer-prepare again")
    return np.asarray(record)


def compute_digest(rows: Iterable[CacheRow], labels: Sequence[str]) -> str:
    """sha256 over a corpus's clips, one a line, in order: names the data in a log.

    A clip in RAVDESS's layout and classes is its id, which says all of it. Any other one is its
    id, label, actor, split and fold.
    """
    digest = hashlib.sha256()
    for row in rows:
        line = row.id
        if row.split or tuple(labels) != RAVDESS_LABELS:
            line = f"{row.id}\t{labels[row.emotion]}\t{row.actor}\t{row.split}\t{row.fold}"
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def prepared_fields(spec: Spec) -> dict[str, Any]:
    """The part of a spec that crops and waveforms depend on, by name."""
    return {
        "audio.sample_rate": spec.audio.sample_rate,
        "window": spec.video.window,
        "video.frames": spec.video.frames,
        "video.size": spec.video.size,
        "video.margin": spec.video.margin,
        "video.detector": spec.video.detector,
    }


def read_index(path: Path) -> dict[str, Any] | None:
    """The index of a cache, finished or not; None where there is none.

    Raises:
        CacheError: it can't be read, or another version of mer-edge wrote it.
    """
    file = path / INDEX_FILE
    try:
        index = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise CacheError(f"{file} can't be read ({error})") from error
    if not isinstance(index, dict) or not {"format", "complete", "spec", "detector"} <= set(index):
        raise CacheError(f"{file} is not the index of a cache")
    if index["format"] != FORMAT_VERSION:
        raise CacheError(
            f"{file} has format {index['format']}, this mer-edge reads {FORMAT_VERSION}: "
            "prepare the corpus again, into another folder"
        )
    return index


def read_notes(path: Path, index: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """What the index of a cache says of its clips' media, by id; older ones say nothing.

    Raises:
        CacheError: it isn't text.
    """
    told = (index or {}).get("notes", {})
    if not isinstance(told, dict) or not all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        for texts in told.values()
    ):
        raise CacheError(f"{path / INDEX_FILE} is damaged (notes that aren't text)")
    return told


def write_index(
    path: Path,
    spec: Spec,
    detector: dict[str, str],
    rows: Iterable[CacheRow] | None,
    failures: list[dict[str, str]],
    notes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the index; ``rows`` None marks an unfinished cache.

    Args:
        notes: what was found wrong with clips' media, sentences by id.
    """
    index: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "complete": rows is not None,
        "spec": spec.to_dict(),
        "detector": detector,
        "failures": failures,
    }
    if notes:
        index["notes"] = {clip: list(texts) for clip, texts in sorted(notes.items())}
    if rows is not None:
        listed = list(rows)
        index["digest"] = compute_digest(listed, spec.labels)
        index["rows"] = [_describe_row(row) for row in listed]
    write_file(path / INDEX_FILE, json.dumps(index, indent=1) + "\n")


def _describe_row(row: CacheRow) -> dict[str, Any]:
    """Its fields, without a split where that follows from the actor."""
    fields = dataclasses.asdict(row)
    if not row.split:
        del fields["split"], fields["fold"]
    return fields
