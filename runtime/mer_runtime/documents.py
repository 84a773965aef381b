"""JSON from others' hands: bounded in size, depth and digits, and all of it text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Bytes: a bench's every time, and the index of 100 000 clips, are less.
MOST_BYTES = 1 << 25
#: Of objects and lists within each other: ours have seven.
MOST_NESTED = 32
#: Digits of a whole number: what 64 bits hold, and a sign.
MOST_DIGITS = 20


def read_json(path: Path) -> Any:
    """The document in a file, UTF-8.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no JSON, or beyond what ``parse_json`` takes.
    """
    with path.open("rb") as file:
        return parse_json(file.read(MOST_BYTES + 1))


def parse_json(content: bytes | str) -> Any:
    """A document; ``NaN`` and ``Infinity`` are numbers, as for Python.

    Raises:
        ValueError: it is no JSON, of more than 32 MB, nested deeper than 32, has a whole number of
            more than 20 digits, or half of a surrogate pair, which no file or terminal takes.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MB")
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        document = json.loads(text, parse_int=_read_whole)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_NESTED}") from None
    _check(document)
    return document


def _read_whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it has a whole number of {len(digits)} digits")
    return int(digits)


def _check(document: Any) -> None:
    """Depth and text, without recursion."""
    level, depth = [document], 0
    while level:
        for value in level:
            if isinstance(value, str) and not value.isascii():
                value.encode()  # a UnicodeEncodeError is a ValueError
        holders = [value for value in level if isinstance(value, (dict, list))]
        if holders and depth == MOST_NESTED:
            raise ValueError(f"it is nested deeper than {MOST_NESTED}")
        level = [part for one in holders for part in one]
        level += [part for one in holders if isinstance(one, dict) for part in one.values()]
        depth += 1
