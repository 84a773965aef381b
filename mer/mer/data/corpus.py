"""A corpus: a folder whose file names say what is in it, or a table."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mer.data import cremad, ravdess
from mer.data.classes import Classes, check_classes, choose_classes, parse_classes
from mer.data.cremad import read_cremad
from mer.data.ravdess import VOCALS, Vocal, read_ravdess
from mer.data.recording import Listing, Recording
from mer.data.splits import Split, divide
from mer.data.table import read_table
from mer.errors import CorpusError
from mer_runtime.files import find_mode
from mer_runtime.inputs.listing import describe_left_out, list_media

#: What is taken of RAVDESS where nothing is said.
VOCAL: Vocal = "speech"
_TAKEN = {"speech": "spoken recording", "song": "sung recording", "both": "recording"}


def find_recordings(root: str | Path) -> list[Recording]:
    """The recordings of a corpus, sorted by id (see ``list_corpus``)."""
    return list(list_corpus(root).recordings)


def list_corpus(
    source: str | Path, *, vocal: Vocal | None = None, classes: str | Classes | None = None
) -> Listing:
    """The recordings of a corpus, sorted by id, each with its class and its split.

    Args:
        source: a table (``mer.data.table``), or a folder above files that are named as RAVDESS's
            (``mer.data.ravdess``) or CREMA-D's (``mer.data.cremad``).
        vocal: what to take of RAVDESS: ``speech`` (without), ``song`` or ``both``.
        classes: which to take, or how to merge them: as ``mer.data.classes`` reads it from text,
            or labels by class.

    Raises:
        CorpusError: there is no such file or folder, no recording in it, a table's cell is wrong,
            there are no such classes, or ``vocal`` doesn't apply.
    """
    path = Path(source)
    if vocal is not None and vocal not in VOCALS:
        raise CorpusError(f"there is no vocal {vocal!r}: take {', '.join(VOCALS)}")
    chosen = parse_classes(classes) if isinstance(classes, str) else classes
    mode = find_corpus(path)
    if stat.S_ISREG(mode):
        _refuse_vocal(vocal, f"{path} is a table")
        listing = read_table(path)
    else:
        listing = _list_folder(path, mode, vocal)
    if chosen is not None:
        listing = choose_classes(listing, chosen)
    check_classes(listing.labels)
    if not listing.recordings:
        raise CorpusError(f"{path} has no recording of the classes {', '.join(listing.labels)}")
    recordings = sorted(_divide(listing, path), key=lambda one: one.id)
    return dataclasses.replace(listing, recordings=tuple(recordings))


def find_corpus(path: Path) -> int:
    """``st_mode`` of a corpus' folder or table, 0 where there is none.

    Raises:
        CorpusError: it may not be looked at.
    """
    return find_mode(path, lambda reason: CorpusError(f"{path} can't be read ({reason})"))


def _list_folder(root: Path, mode: int, vocal: Vocal | None) -> Listing:
    if not stat.S_ISDIR(mode):
        raise CorpusError(
            f"{root} is not a folder: name the one that holds {ravdess.LAYOUT}, or a table "
            "(file,label)"
        )
    media = list_media(root)
    spoken, posed = read_ravdess(media.clips, vocal or VOCAL), read_cremad(media.clips)
    if spoken.recordings and posed.recordings:
        raise CorpusError(
            f"{root} holds {len(spoken.recordings)} recordings named as RAVDESS's and "
            f"{len(posed.recordings)} named as CREMA-D's: name the folder of one of them, or "
            "write a table of both"
        )
    listing = posed if posed.recordings else spoken
    if posed.recordings:
        _refuse_vocal(vocal, f"{root} is named as CREMA-D")
    if not listing.recordings:
        passed = listing.passed_over
        told = [f"{passed[name]} {name}" for name in ("songs", "spoken") if passed[name]]
        told.append(f"{passed['other names']} media files with other names")
        if left_out := describe_left_out(media.left_out):
            told[-1] += f"; {left_out}"
        raise CorpusError(
            f"{root} holds no {_TAKEN[vocal or VOCAL]} ({', '.join(told)}): expected RAVDESS's "
            f"layout, {ravdess.LAYOUT}, or CREMA-D's, {cremad.LAYOUT}. Any other corpus needs a "
            "table: mer-prepare TABLE.csv"
        )
    return dataclasses.replace(listing, left_out=dict(media.left_out))


def _refuse_vocal(vocal: Vocal | None, why: str) -> None:
    if vocal is not None:
        raise CorpusError(f"speech and song are told apart in RAVDESS alone, and {why}")


def _divide(listing: Listing, source: Path) -> Sequence[Recording]:
    """The recordings with splits and folds, where the corpus has no written list."""
    recordings = listing.recordings
    if listing.division in ("list", "table"):
        return recordings
    if listing.division == "actors":
        drawn = divide(one.actor for one in recordings)
        places = [drawn[one.actor] for one in recordings]
    else:
        places = _divide_clips(recordings, source.parent)
    return [
        dataclasses.replace(one, split=split, fold=fold)
        for one, (split, fold) in zip(recordings, places, strict=True)
    ]


def _divide_clips(recordings: Sequence[Recording], root: Path) -> list[tuple[Split, int]]:
    """Splits by file; and class by class, where no file has several recordings."""
    files = [Path(os.path.relpath(one.path, root)).as_posix() for one in recordings]
    whole = max(Counter(files).values()) > 1
    groups = [0 if whole else one.emotion for one in recordings]
    drawn = {
        group: divide(file for file, own in zip(files, groups, strict=True) if own == group)
        for group in set(groups)
    }
    return [drawn[group][file] for file, group in zip(files, groups, strict=True)]
