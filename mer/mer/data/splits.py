"""Which actors train, validate and test: a written list, so that every run means the same."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

from mer.errors import CorpusError

Split = Literal["train", "validation", "test", "all"]
SPLITS: tuple[Split, ...] = get_args(Split)

FOLDS = 5


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
        if not 1 <= fold <= len(self.folds):
            raise CorpusError(f"there is no fold {fold}: they are 1 to {len(self.folds)}")
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
    """Those of a corpus's ``actors`` who belong to ``split``.

    Args:
        split: ``train``, ``validation``, ``test`` or ``all`` (everyone, whatever the fold).
        fold: 1 to 5 for the folds (see ``Splits.held_out``), None for the default split.

    Raises:
        CorpusError: there is no such split or fold, or none of the actors belongs to it.
    """
    present = frozenset(actors)
    if split not in SPLITS:
        raise CorpusError(f"there is no split {split!r}: they are {', '.join(SPLITS)}")
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
