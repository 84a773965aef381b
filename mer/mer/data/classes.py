"""A subset or a merging of a corpus's classes, such as ``happy,sad,other=calm+neutral``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mer.data.recording import Listing
from mer.errors import CorpusError

FEWEST_CLASSES, MOST_CLASSES = 2, 100
#: Stands for all labels that no other class has.
REST = ("...", "\u2026")

#: Classes in the order that a model counts them, each with the corpus's labels that it takes.
Classes = Mapping[str, Sequence[str]]


def parse_classes(text: str) -> dict[str, tuple[str, ...]]:
    """Read ``NAME``, ``NAME=LABEL+LABEL`` and ``NAME=...``, with commas between.

    Raises:
        CorpusError: a name is missing or stands twice.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for item in text.split(","):
        name, equals, labels = (part.strip() for part in item.partition("="))
        taken = tuple(label.strip() for label in labels.split("+")) if equals else (name,)
        if not name or not all(taken):
            raise CorpusError(
                f"classes {text!r}: {item.strip() or 'an empty one'} is none: write NAME, "
                "NAME=LABEL+LABEL, or NAME=... for all the rest, with commas between"
            )
        if name in classes:
            raise CorpusError(f"classes {text!r}: {name} stands there twice")
        classes[name] = taken
    return classes


def choose_classes(listing: Listing, classes: Classes) -> Listing:
    """The recordings whose label is in one of ``classes``; capitals don't matter.

    Raises:
        CorpusError: as ``place_classes``.
    """
    chosen = place_classes(listing.labels, classes)
    kept = tuple(
        dataclasses.replace(one, emotion=chosen[one.emotion])
        for one in listing.recordings
        if one.emotion in chosen
    )
    passed = {"other classes": len(listing.recordings) - len(kept)}
    return dataclasses.replace(
        listing,
        recordings=kept,
        labels=tuple(classes),
        passed_over={**listing.passed_over, **passed},
    )


def place_classes(labels: Sequence[str], classes: Classes) -> dict[int, int]:
    """Places in a corpus's ``labels`` to places in ``classes``; capitals don't matter.

    Raises:
        CorpusError: a label isn't the corpus's, is in two classes, or a class has none.
    """
    places = {label.casefold(): place for place, label in enumerate(labels)}
    chosen: dict[int, int] = {}
    rest = None
    for number, (name, taken) in enumerate(classes.items()):
        for label in taken:
            if label in REST:
                if rest is not None:
                    raise CorpusError(f"two classes take all the rest: {name} is the second")
                rest = number
                continue
            place = places.get(label.casefold())
            if place is None:
                raise CorpusError(f"the corpus has no label {label!r}: it has {', '.join(labels)}")
            if place in chosen:
                raise CorpusError(f"the label {label} is taken twice, the second time by {name}")
            chosen[place] = number
    if rest is not None:
        for place in range(len(labels)):
            chosen.setdefault(place, rest)
    for number, name in enumerate(classes):
        if number not in chosen.values():
            raise CorpusError(f"the class {name} takes no label: all have a class already")
    return chosen


def check_classes(labels: Sequence[str]) -> None:
    """Refuse a corpus of too few or too many classes.

    Raises:
        CorpusError: there aren't 2 to 100.
    """
    if not FEWEST_CLASSES <= len(labels) <= MOST_CLASSES:
        told = ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")
        raise CorpusError(
            f"a model tells {FEWEST_CLASSES} to {MOST_CLASSES} classes apart, and the corpus has "
            f"{len(labels)} ({told}): take some of them, or merge them, with --classes"
        )
