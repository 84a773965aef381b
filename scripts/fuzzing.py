"""What every subject of the fuzzer shares: inputs, a guard around each, and what is counted.

A subject is run in a process of its own. It fails where the process crashes or an input takes more
than ``PATIENCE`` seconds or ``MEMORY`` bytes, raises what isn't a ``MerError`` or click's, writes
outside the run's folder, or connects to anything.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mer_runtime.errors import MerError

#: Seconds and bytes that one input may take.
PATIENCE, MEMORY = 10.0, 1 << 30

#: What stands in the place of anything in a document.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**64, 10**19, -(10**25), 10**4000),
    *(0.5, -0.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"), -float("inf")),
    *("", "a", "1", "a" * 300, "\ud800", "../x", "/etc/passwd", "a\0b", "\x1b[2J", "<script>"),
    *([], {}, [[]], [1] * 50, {"a": {"b": {}}}, [None], ["a", "a"]),
)
#: Characters that are shown of an input with a fault.
LONGEST = 1500
#: Numbers that stand in the place of four or eight bytes.
ODD_NUMBERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)
#: Events of Python's own that change files, how many of their arguments are paths, and where it
#: stands that those count from another folder: what empties a folder does so.
CHANGES = {
    **{"os.mkdir": (1, 2), "os.remove": (1, 1), "os.rename": (2, 2), "os.symlink": (2, 2)},
    **{"os.rmdir": (1, 1), "os.truncate": (1, 1)},
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Subject:
    """What is fed to what.

    Attributes:
        share: of all inputs, in relation to the others' shares.
        prepare: from the run's folder to the inputs, and what takes one.
    """

    share: int
    prepare: Callable[[Path], tuple[SearchStrategy[Any], Callable[[Any], object]]]


@dataclass
class Outcome:
    """Counts of a run; ``fault`` is empty where there was none."""

    inputs: int = 0
    refused: int = 0
    peak_mb: int = 0
    seconds: float = 0.0
    fault: str = ""


def run_subject(subject: Subject, inputs: int, number: int, folder: Path) -> Outcome:
    """Feed a subject; ``number`` is the seed."""
    outcome = Outcome()
    begun = time.monotonic()
    strategy, take = subject.prepare(folder)
    strange = _watch(folder)
    before = _peak()

    @seed(number)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def feed(case: Any) -> None:
        outcome.inputs += 1
        with _hurried(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                take(case)
            except (MerError, click.ClickException, click.exceptions.Exit):
                outcome.refused += 1
            except Exception:
                outcome.fault = f"{traceback.format_exc(limit=-8)}\nfor {repr(case)[:LONGEST]}"
                raise
        if strange or (_peak() - before) * 1024 > MEMORY:
            did = strange.pop() if strange else f"took {(_peak() - before) // 1024} MB"
            outcome.fault = f"it did {did}\nfor {repr(case)[:LONGEST]}"
            raise AssertionError(did)

    with contextlib.suppress(Exception):  # kept above, as that of the least input
        feed()
    outcome.peak_mb = _peak() // 1024
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def _peak() -> int:
    """The most memory in kB that this process has taken.

    Not ``ru_maxrss``: a process begins with that of the one that started it.
    """
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


@contextlib.contextmanager
def _hurried() -> Iterator[None]:
    """End the process, with a traceback, where the block takes too long, whatever it waits for."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _watch(folder: Path) -> list[str]:
    """From now on, what is written outside ``folder`` and every connection."""
    found: list[str] = []
    allowed = (str(folder.resolve()), "/dev/null", "/proc/self")

    def is_strange(path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return not os.path.abspath(os.fsdecode(path)).startswith(allowed)  # noqa: PTH100

    def hear(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[2], int) and given[2] & WRITING:
            if is_strange(given[0]):
                found.append(f"open {given[0]!r} to write")
        elif event in CHANGES:
            count, place = CHANGES[event]
            if given[place] == -1 and any(map(is_strange, given[:count])):
                found.append(f"{event} {given!r}")
        elif event == "socket.connect" and given[1] not in ALLOWED_PLACES:
            found.append(f"a connection to {given[1]!r}")

    sys.addaudithook(hear)
    return found


#: Where a subject itself connects to.
ALLOWED_PLACES: set[Any] = set()


@st.composite
def mutants(draw: st.DrawFn, content: bytes) -> bytes:
    """A file's content with up to four damages: flips, cuts, odd numbers, repetitions."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            del data[at:]
        elif kind == 1 and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == 2:
            width = draw(st.sampled_from((4, 8)))
            order: Any = draw(st.sampled_from(("little", "big")))
            number = draw(st.sampled_from(ODD_NUMBERS)) % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, order)
        elif kind == 3:
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == 4:
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        else:
            data[at:at] = draw(st.binary(max_size=32))
    return bytes(data)


#: Documents of any kind.
anything = st.recursive(
    st.sampled_from(ODD_VALUES[:-7]) | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def edited(document: Any) -> SearchStrategy[Any]:
    """A document with up to three of its values replaced, or left out."""
    places = list(_places(document))

    @st.composite
    def edit(draw: st.DrawFn) -> Any:
        made = copy.deepcopy(document)
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.sampled_from(places))
            value = draw(st.sampled_from(ODD_VALUES) | anything)
            with contextlib.suppress(LookupError, TypeError):  # gone by an edit before
                holder = made
                for key in place[:-1]:
                    holder = holder[key]
                if draw(st.integers(0, 4)) == 0:
                    del holder[place[-1]]
                else:
                    holder[place[-1]] = copy.deepcopy(value)
        return made

    return edit()


def _places(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = document if isinstance(document, dict) else range(len(document))
    for key in list(keys)[:40]:
        place = (*before, key)
        yield place
        if isinstance(document[key], (dict, list)):
            yield from _places(document[key], place)


#: Names of files, folders and labels, as people and attackers give them.
names = st.one_of(
    st.text(min_size=1, max_size=30),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
    st.sampled_from(
        (
            *("\x1b[31mred", "<b>", "a\nb", "-", "--help", "..", "a" * 300, "ä" * 200, "\udcff"),
            *("http:", "concat:a|b", "12:30:05.mp4", "%d.png", "CON", "a\0b", "@x", "file:a"),
        )
    ),
)
