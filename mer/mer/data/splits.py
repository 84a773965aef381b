"""Which clips train, validate and test: by a written list of actors, a rule, or a table's word."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, Protocol, TypeVar, get_args

from mer.errors import CorpusError

Split = Literal["train", "validation", "test", "all"]
SPLITS: tuple[Split, ...] = get_args(Split)
#: The splits that divide a corpus.
PARTS: tuple[Split, ...] = ("train", "validation", "test")

FOLDS = 5

#: What a corpus without a written list holds out for testing, and as much for validation.
SHARE = 6

Unit = TypeVar("Unit", bound=Hashable)


class Row(Protocol):
    """What splitting needs to know of a clip: who speaks, and what was decided, if it was."""

    @property
    def id(self) -> str: ...
    @property
    def actor(self) -> int: ...
    @property
    def split(self) -> str: ...
    @property
    def fold(self) -> int: ...


@dataclass(frozen=True)
class Splits:
    """The written list, ``splits.json``: actors of the default split and of the five folds.

    Who is in neither test nor validation trains. ``sha256`` names the actors' lists,
    whatever is written around them.
    """

    test: frozenset[int]
    validation: frozenset[int]
    folds: tuple[frozenset[int], ...]
    sha256: str

    def held_out(self, fold: int | None) -> tuple[frozenset[int], frozenset[int]]:
        """Actors of (test, validation): the default split's, or those of fold 1 to 5.

        Fold k tests on the k-th set of actors and validates on the next one, the fifth on the
        first.

        Raises:
            CorpusError: there is no such fold.
        """
        if fold is None:
            return self.test, self.validation
        _check_fold(fold)
        return self.folds[fold - 1], self.folds[fold % len(self.folds)]


@functools.cache
def load_splits() -> Splits:
    """Read the list that ships with the package."""
    data = json.loads(resources.files("mer").joinpath("splits.json").read_text("utf-8"))
    test, validation = data["default"]["test"], data["default"]["validation"]
    folds = data["folds"]["actors"]
    canonical = json.dumps([sorted(test), sorted(validation), [sorted(fold) for fold in folds]])
    return Splits(
        test=frozenset(test),
        validation=frozenset(validation),
        folds=tuple(frozenset(fold) for fold in folds),
        sha256=hashlib.sha256(canonical.encode()).hexdigest(),
    )


def split_actors(actors: Iterable[int], split: str, fold: int | None = None) -> frozenset[int]:
    """Those of a corpus's ``actors`` who belong to ``split`` by the written list.

    Args:
        split: ``train``, ``validation``, ``test`` or ``all`` (everyone, whatever the fold).
        fold: 1 to 5 for the folds (see ``Splits.held_out``), None for the default split.

    Raises:
        CorpusError: there is no such split or fold, or none of the actors belongs to it.
    """
    present = frozenset(actors)
    _check_split(split)
    test, validation = load_splits().held_out(fold)
    chosen = {
        "train": present - test - validation,
        "validation": present & validation,
        "test": present & test,
        "all": present,
    }[split]
    if not chosen:
        where = "the default split" if fold is None else f"fold {fold}"
        raise CorpusError(
            f"no actor of the corpus is in {split} of {where}: "
            f"the corpus has {sorted(present)}, test is {sorted(test)}, "
            f"validation is {sorted(validation)}, the rest train"
        )
    return chosen


def divide(units: Iterable[Unit]) -> dict[Unit, tuple[Split, int]]:
    """The split and the fold, 1 to 5, of each of a corpus's actors or clips.

    They are drawn by a hash of their names, so that every machine draws the same. A sixth tests
    and a sixth validates, at least one each. Fewer than three can't be divided: all of them train.
    """
    drawn = sorted(
        dict.fromkeys(units), key=lambda unit: hashlib.sha256(f"split {unit}".encode()).digest()
    )
    held = max(1, round(len(drawn) / SHARE)) if len(drawn) >= len(PARTS) else 0
    return {
        unit: (
            "test" if i < held else "validation" if i < 2 * held else "train",
            1 + i % FOLDS,
        )
        for i, unit in enumerate(drawn)
    }


def select_rows(rows: Sequence[Row], split: str, fold: int | None = None) -> list[int]:
    """Row numbers of a split, in order: as the rows say, or else by the written list of actors.

    Raises:
        CorpusError: there is no such split or fold, or no clip is in it.
    """
    if not any(row.split for row in rows):
        actors = split_actors((row.actor for row in rows), split, fold)
        return [i for i, row in enumerate(rows) if row.actor in actors]
    _check_split(split)
    if fold is not None:
        _check_fold(fold)
        if not all(row.fold for row in rows):
            raise CorpusError(
                "the corpus's own table says which clips train, validate and test, so it has no "
                "folds: leave out --fold"
            )
    chosen = [i for i, row in enumerate(rows) if split in ("all", find_split(row, fold))]
    if not chosen:
        counts = count_splits(rows, fold)
        told = ", ".join(f"{count} in {name}" for name, count in counts.items())
        if fold is not None:
            raise CorpusError(
                f"no clip of the corpus is in {split} of fold {fold} (it has {told}): folds need "
                f"clips of at least {FOLDS} actors"
            )
        raise CorpusError(
            f"no clip of the corpus is in {split} (it has {told}): give its table clips "
            "of at least three actors, or a column split"
        )
    return chosen


def find_split(row: Row, fold: int | None = None) -> str:
    """The split of a row that knows its own.

    Fold k tests on the clips of fold k and validates on those of the next one.
    """
    if fold is None:
        return row.split
    return {fold: "test", fold % FOLDS + 1: "validation"}.get(row.fold, "train")


def count_splits(rows: Sequence[Row], fold: int | None = None) -> Mapping[str, int]:
    """How many clips train, validate and test."""
    if any(row.split for row in rows):
        found = [find_split(row, fold) for row in rows]
    else:
        test, validation = load_splits().held_out(fold)
        found = [
            "test" if row.actor in test else "validation" if row.actor in validation else "train"
            for row in rows
        ]
    return {part: found.count(part) for part in PARTS}


def hash_splits(rows: Sequence[Row]) -> str:
    """sha256 of what decides the splits: the written list, or what the rows say."""
    if not any(row.split for row in rows):
        return load_splits().sha256
    lines = (f"{row.id}\t{row.split}\t{row.fold}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise CorpusError(f"there is no split {split!r}: they are {', '.join(SPLITS)}")


def _check_fold(fold: int) -> None:
    if not 1 <= fold <= FOLDS:
        raise CorpusError(f"there is no fold {fold}: they are 1 to {FOLDS}")
