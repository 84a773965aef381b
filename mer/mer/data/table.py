"""A corpus as a table: a CSV file with a row for each recording.

Columns: ``file`` and ``label``; and where there is something to say, ``actor``, ``split``,
``start`` and ``end`` (seconds), and ``voice``, a sound file that is heard in place of the clip's
own. Files are named from the table's folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mer.data.csv_rows import Faults, Line, read_lines
from mer.data.index import LONGEST_ID
from mer.data.recording import Listing, Recording
from mer_runtime.files import may_be_file
from mer_runtime.spec import LONGEST_LABEL, RAVDESS_LABELS

FILE, LABEL, ACTOR, SPLIT = "file", "label", "actor", "split"
START, END, VOICE = "start", "end", "voice"
#: Another name of the last one.
VOICE_FILE = "voice file"

#: What a cell of ``split`` may be, and what it means.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
#: Actors that a warning names.
NAMED = 3


def read_table(table: Path) -> Listing:
    """The recordings that a table names; capitals of labels don't matter.

    Where all labels are RAVDESS's they stand in its order, else by the alphabet. Actors that are
    all numbers from 1 keep them; others are counted, by the alphabet.

    Raises:
        CorpusError: the table can't be read, or a cell is wrong: the message names its line and
            column.
    """
    lines, columns = read_lines(table, (FILE, LABEL))
    faults = Faults(table)
    labels = _order_labels([line.cells[LABEL] for line in lines])
    places = {label.casefold(): place for place, label in enumerate(labels)}
    actors = _number_actors([line.cells[ACTOR] for line in lines]) if ACTOR in columns else {}
    recordings: list[Recording] = []
    seen: dict[tuple[Path, float, float], int] = {}
    for line in lines:
        cells = line.cells
        path = _find_file(table, line, FILE, faults)
        voice = _find_file(table, line, VOICE_FILE if VOICE_FILE in columns else VOICE, faults)
        start, end = _read_part(line, faults)
        _check_texts(line, columns, faults)
        if path is None:
            continue
        key = path.resolve(), start, end
        if key in seen:
            faults.add(line.number, FILE, f"{cells[FILE]} was named in line {seen[key]} already")
        seen[key] = line.number
        recordings.append(
            Recording(
                id=_name_clip(cells[FILE], start, end),
                path=path,
                audio_path=voice,
                actor=actors.get(cells.get(ACTOR, ""), 0),
                emotion=places[cells[LABEL].casefold()],
                own_sound=voice is None,
                start=start,
                end=end,
                split=SPLIT_NAMES.get(cells.get(SPLIT, "").lower(), ""),
            )
        )
    faults.check()
    return Listing(
        tuple(_tell_apart(recordings, table)),
        labels,
        "table" if SPLIT in columns else "actors" if ACTOR in columns else "clips",
        warnings=_warn(table, lines, columns),
    )


def _find_file(table: Path, line: Line, column: str, faults: Faults) -> Path | None:
    """The file that a cell names; None, and a fault, where there is none."""
    name = line.cells.get(column, "")
    if not name and column != FILE:
        return None
    path = table.parent / name
    if not name or not may_be_file(path):
        faults.add(line.number, column, f"there is no file {name or '(empty)'} in {table.parent}")
        return None
    return path


def _read_part(line: Line, faults: Faults) -> tuple[float, float]:
    found = {START: 0.0, END: math.inf}
    for column in found:
        text = line.cells.get(column, "")
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            faults.add(line.number, column, f"{text!r} is no number of seconds, such as 12.5")
            continue
        found[column] = value
    if found[END] <= found[START]:
        faults.add(line.number, END, f"{found[END]:g} s isn't after the start, {found[START]:g} s")
    return found[START], found[END]


def _check_texts(line: Line, columns: Sequence[str], faults: Faults) -> None:
    label = line.cells[LABEL]
    if not label:
        faults.add(line.number, LABEL, "it is empty")
    elif len(label) > LONGEST_LABEL or not label.isprintable():
        faults.add(line.number, LABEL, f"no label is like {label[:40]!r}")
    if ACTOR in columns and not line.cells[ACTOR]:
        faults.add(line.number, ACTOR, "it is empty: say who speaks in each row, or in none")
    if SPLIT in columns and line.cells[SPLIT].lower() not in SPLIT_NAMES:
        told = line.cells[SPLIT] or "(empty)"
        faults.add(line.number, SPLIT, f"{told} is none of train, validation, test")


def _order_labels(found: Sequence[str]) -> tuple[str, ...]:
    """Each label once, as it is first written."""
    first: dict[str, str] = {}
    for label in found:
        first.setdefault(label.casefold(), label)
    known = {label: place for place, label in enumerate(RAVDESS_LABELS)}
    if all(key in known for key in first):
        return tuple(sorted(first, key=known.__getitem__))
    return tuple(first[key] for key in sorted(first))


def _number_actors(names: Sequence[str]) -> dict[str, int]:
    if all(name.isdecimal() and 0 < int(name) < 1 << 31 for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(sorted(set(names)), start=1)}


def _name_clip(file: str, start: float, end: float) -> str:
    """What a clip is called: its file's name with its folders, and its part."""
    name = re.sub(r"[^\w.+-]+", "_", str(Path(file).with_suffix(""))).strip("._") or "clip"
    if start == 0 and math.isinf(end):
        return name
    return f"{name}@{start:g}-" + ("" if math.isinf(end) else f"{end:g}")


def _tell_apart(recordings: Sequence[Recording], table: Path) -> list[Recording]:
    """Recordings whose ids differ, and aren't too long: where need be with a hash at the end."""
    same: dict[str, list[Recording]] = defaultdict(list)
    for one in recordings:
        same[one.id.casefold()].append(one)
    told = []
    for some in same.values():
        for one in some:
            name = one.id
            if len(some) > 1 or len(name.encode()) > LONGEST_ID:
                file = os.path.relpath(one.path, table.parent)
                key = f"{file} {one.start} {one.end}"
                short = name.encode()[: LONGEST_ID - 20].decode(errors="ignore")
                name = f"{short}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
            told.append(dataclasses.replace(one, id=name))
    return told


def _warn(table: Path, lines: Sequence[Line], columns: Sequence[str]) -> tuple[str, ...]:
    """Why figures on such a corpus would flatter, where they would."""
    met = (
        "a model is then scored on faces and voices that it was trained on, and on people that it "
        "never met it is right less often than its figures say"
    )
    if ACTOR not in columns:
        how = "may be" if SPLIT in columns else "is"
        drawn = "" if SPLIT in columns else ", and its clips are divided at random"
        return (
            f"{table} has no column actor{drawn}: the same person {how} in training and in test; "
            f"{met}. (Its columns: {', '.join(columns)})",
        )
    if SPLIT not in columns:
        return ()
    splits: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        splits[line.cells[ACTOR]].add(SPLIT_NAMES[line.cells[SPLIT].lower()])
    torn = sorted(actor for actor, found in splits.items() if len(found) > 1)
    if not torn:
        return ()
    told = ", ".join(torn[:NAMED]) + (", ..." if len(torn) > NAMED else "")
    return (
        f"{len(torn)} of the {len(splits)} actors in {table} are in more than one split ({told}): "
        f"{met}",
    )
