"""A prepared corpus on disk: face crops and waveforms of every clip's window, read by row.

A cache is a folder with ``cache.json``, the index, and ``clips/ID.npy``, one structured array of
one record a clip (``clip_dtype``): about 2.4 MB with the default spec, read by memory mapping.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.data.index import (
    INDEX_FILE,
    INT16_SCALE,
    CacheRow,
    clip_path,
    compute_digest,
    prepared_fields,
    read_clip,
    read_index,
    read_notes,
    read_row,
)
from mer.data.splits import hash_splits, select_rows
from mer.errors import CacheError
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.spec import AudioSpec, Colour, Spec

#: Clips whose files stay mapped: a training reads each again and again, and opening it takes as
#: long as its MFCCs.
MAPPED = 4096


class Cache:
    """A cache that ``mer-prepare`` finished.

    Attributes:
        path: its folder.
        spec: the preprocessing of its crops (RGB) and waveforms; its MFCC parameters are only
            the defaults, since MFCCs are computed on reading.
        rows: the clips, sorted by id.
        digest: names the data in a log (see ``mer.data.index.compute_digest``).
        detector: the face detector's ``name``, ``file`` and ``sha256``.
        failures: ``id`` and ``error`` of each recording that couldn't be prepared.
        notes: what was found wrong with the media of some clips, sentences by id.
        fold: that ``select`` takes where none is asked for; None is the default split.
    """

    def __init__(self, path: Path, spec: Spec, rows: tuple[CacheRow, ...], index: Any) -> None:
        self.path = path
        self.spec = spec
        self.rows = rows
        self.digest: str = index["digest"]
        self.detector: dict[str, str] = index["detector"]
        self.failures: list[dict[str, str]] = index["failures"]
        self.notes = read_notes(path, index)
        self.fold: int | None = None
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
            rows = tuple(read_row(row, spec) for row in index["rows"])
            cache = cls(path, spec, rows, index)
            for told in (cache.detector, *cache.failures):
                if not all(isinstance(text, str) for text in dict(told).values()):
                    raise TypeError("a detector or failure that isn't text")
        except (KeyError, TypeError, ValueError) as error:
            raise CacheError(f"{path / INDEX_FILE} is damaged ({error})") from error
        if compute_digest(rows, spec.labels) != cache.digest:
            raise CacheError(f"{path / INDEX_FILE} was edited: its clips don't match its digest")
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
        """Row numbers of a split, in order: by the table's word, or by actor.

        Raises:
            CorpusError: there is no such split or fold, or no clip is in it.
        """
        return select_rows(self.rows, split, fold or self.fold)

    def hash_splits(self) -> str:
        """sha256 of what decides who trains, validates and tests."""
        return hash_splits(self.rows)

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
