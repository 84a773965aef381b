"""A prepared corpus on disk: face crops and waveforms of every clip's window, read by row.

A cache is a folder with ``cache.json``, the index, and ``clips/ID.npy``, one structured array of
one record a clip (``clip_dtype``): about 2.4 MB with the default spec, read by memory mapping.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.data.splits import split_actors
from mer.errors import CacheError
from mer_runtime.documents import read_json
from mer_runtime.files import write_file
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.spec import AudioSpec, Colour, Spec

INDEX_FILE = "cache.json"
CLIPS_FOLDER = "clips"
FORMAT_VERSION = 1

#: Characters of a clip's name: a file's, with its suffix.
LONGEST_ID = 200

#: What a waveform's full scale is stored as.
INT16_SCALE = 32_768

#: Clips whose files stay mapped: a training reads each again and again, and opening it takes as
#: long as its MFCCs.
MAPPED = 4096


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


def _read_row(row: Any, spec: Spec) -> CacheRow:
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


def compute_digest(ids: Iterable[str]) -> str:
    """sha256 over a corpus's ids, one a line, in order."""
    return hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()


class Cache:
    """A cache that ``mer-prepare`` finished.

    Attributes:
        path: its folder.
        spec: the preprocessing of its crops (RGB) and waveforms; its MFCC parameters are only
            the defaults, since MFCCs are computed on reading.
        rows: the clips, sorted by id.
        digest: sha256 over the ids: names the data in a log.
        detector: the face detector's ``name``, ``file`` and ``sha256``.
        failures: ``id`` and ``error`` of each recording that couldn't be prepared.
    """

    def __init__(self, path: Path, spec: Spec, rows: tuple[CacheRow, ...], index: Any) -> None:
        self.path = path
        self.spec = spec
        self.rows = rows
        self.digest: str = index["digest"]
        self.detector: dict[str, str] = index["detector"]
        self.failures: list[dict[str, str]] = index["failures"]
        self._hear = functools.lru_cache(MAPPED)(self._read_voice)

    @classmethod
    def open(cls, path: str | Path) -> Cache:
        """Read the index and see that every clip's file is there.

        Raises:
            CacheError: there is no cache, it isn't finished, or it is damaged.
        """
        path = Path(path)
        index = read_index(path)
        if index is None:
            raise CacheError(
                f"{path} holds no {INDEX_FILE}, so it is no cache: make one with "
                f"mer-prepare ROOT --out {path}"
            )
        if not index["complete"]:
            raise CacheError(
                f"{path} isn't finished: run mer-prepare ROOT --out {path} again, "
                "which goes on where it stopped"
            )
        try:
            spec = Spec.from_dict(index["spec"])
            rows = tuple(_read_row(row, spec) for row in index["rows"])
            cache = cls(path, spec, rows, index)
            for told in (cache.detector, *cache.failures):
                if not all(isinstance(text, str) for text in dict(told).values()):
                    raise TypeError("a detector or failure that isn't text")
        except (KeyError, TypeError, ValueError) as error:
            raise CacheError(f"{path / INDEX_FILE} is damaged ({error})") from error
        if compute_digest(row.id for row in rows) != cache.digest:
            raise CacheError(f"{path / INDEX_FILE} was edited: its ids don't match its digest")
        missing = [row.id for row in rows if not clip_path(path, row.id).is_file()]
        if missing:
            raise CacheError(
                f"{path} lacks {len(missing)} of its {len(rows)} clips, such as {missing[0]}: "
                "run mer-prepare again, which makes only those"
            )
        return cache

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, split: str, fold: int | None = None) -> list[int]:
        """Row numbers of a split, in order (see ``mer.data.splits.split_actors``).

        Raises:
            CorpusError: there is no such split or fold, or no clip is in it.
        """
        actors = split_actors((row.actor for row in self.rows), split, fold)
        return [i for i, row in enumerate(self.rows) if row.actor in actors]

    def waveform(self, row: int) -> NDArray[np.int16]:
        """(samples,) int16, mono, its peak at full scale; zeros where the voice is missing.

        It can't be written to.
        """
        return self._hear(row)[0]

    def level(self, row: int) -> float:
        """The amplitude that full scale of ``waveform`` stands for, 0 to 1 and above."""
        return float(self._hear(row)[1])

    def crops(self, row: int, *, colour: Colour = "rgb") -> NDArray[np.uint8]:
        """(frames, size, size, 3) uint8, memory-mapped; zeros where the face is missing."""
        crops: NDArray[np.uint8] = self._read(row)["crops"][0]
        return crops if colour == "rgb" else crops[..., ::-1]

    def found(self, row: int) -> NDArray[np.bool_]:
        """(frames,) bool: in which frames a face was detected."""
        found: NDArray[np.bool_] = self._read(row)["found"][0]
        return found

    def mfcc(
        self,
        row: int,
        spec: AudioSpec,
        *,
        waveform: NDArray[np.int16] | NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """MFCCs (n_mfcc, T) float32 of a clip's voice; zeros where the voice is missing.

        Args:
            waveform: what to use for the cached one, such as the same with noise: (samples,)
                int16, or float32 where 1 is int16's full scale. The clip's level is applied
                to it as to the cached one.

        Raises:
            CacheError: ``spec`` has another sample rate or window than the cache.
        """
        made = self.spec.audio
        if (made.sample_rate, made.window) != (spec.sample_rate, spec.window):
            raise CacheError(
                f"{self.path} holds {made.window} s at {made.sample_rate} Hz, not {spec.window} s "
                f"at {spec.sample_rate} Hz: prepare another cache"
            )
        if not self.rows[row].has_voice:
            return np.zeros(spec.shape, np.float32)
        heard, level = self._hear(row)
        if waveform is not None:
            heard = waveform
        scale = level / (INT16_SCALE if heard.dtype == np.int16 else 1)
        return compute_mfcc(heard.astype(np.float32) * np.float32(scale), spec)

    def require(self, spec: Spec) -> None:
        """Refuse a model whose preprocessing the cache wasn't made with.

        The order of colours and all MFCC parameters may differ: those are applied on reading. So
        is a smaller size of the crops (``mer.data.dataset.read_crops``).

        Raises:
            CacheError: sample rate, window, frames, margin or detector differ, or the crops are
                smaller than the model's.
        """
        made, wanted = prepared_fields(self.spec), prepared_fields(spec)
        if spec.video.size < self.spec.video.size:
            wanted["video.size"] = made["video.size"]
        differing = [name for name in made if made[name] != wanted[name]]
        if differing:
            told = ", ".join(f"{n} is {made[n]}, not {wanted[n]}" for n in differing)
            raise CacheError(
                f"{self.path} was prepared otherwise than the model needs ({told}): "
                "run mer-prepare with --out of another folder and the model's settings"
            )

    def _read_voice(self, row: int) -> tuple[NDArray[Any], np.float32]:
        """A clip's waveform, and the amplitude of its full scale."""
        record = self._read(row)
        waveform = record["waveform"][0]
        waveform.flags.writeable = False
        level = record["level"][0]
        if not 0 <= level < np.inf:
            raise CacheError(
                f"{clip_path(self.path, self.rows[row].id)} is damaged: delete it, run mer-prepare "
                "again"
            )
        return waveform, level

    def _read(self, row: int) -> NDArray[np.void]:
        return read_clip(clip_path(self.path, self.rows[row].id), self.spec)


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


def write_index(
    path: Path,
    spec: Spec,
    detector: dict[str, str],
    rows: Iterable[CacheRow] | None,
    failures: list[dict[str, str]],
) -> None:
    """Write the index; ``rows`` None marks an unfinished cache."""
    index: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "complete": rows is not None,
        "spec": spec.to_dict(),
        "detector": detector,
        "failures": failures,
    }
    if rows is not None:
        listed = list(rows)
        index["digest"] = compute_digest(row.id for row in listed)
        index["rows"] = [dataclasses.asdict(row) for row in listed]
    write_file(path / INDEX_FILE, json.dumps(index, indent=1) + "\n")
