"""What a machine may lack or do to a command: the conditions of ``prove_faults``."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fault_subjects import Subject

#: Bytes that a file, or the disk, may have.
LITTLE = 300_000
#: Files that may be open.
HANDLES = 32
YEAR = 365 * 86_400.0


@dataclass(frozen=True)
class Setting:
    """How a command is run under a condition.

    Attributes:
        may_die: the condition is that it is ended.
        clear: undoes what was set up.
    """

    words: list[str]
    out: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    may_die: bool = False
    clear: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Condition:
    """A condition.

    Attributes:
        set_up: called with the command and a place for its output; None where it can't be made.
        must_work: the command works all the same.
        goes_on: the same command must end well afterwards, without the condition.
    """

    name: str
    set_up: Callable[[Subject, Path], Setting | None]
    must_work: bool = False
    goes_on: bool = True


def limit_files(subject: Subject, out: Path) -> Setting:
    """No file may grow: a write fails as on a full disk."""
    return Setting(
        subject.words(out, again=False),
        out,
        options={"preexec_fn": partial(_limit, resource.RLIMIT_FSIZE, LITTLE)},
    )


def limit_handles(subject: Subject, out: Path) -> Setting:
    """Few files may be open."""
    return Setting(
        subject.words(out, again=False),
        out,
        options={"preexec_fn": partial(_limit, resource.RLIMIT_NOFILE, HANDLES)},
    )


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, most))


def fill_disk(subject: Subject, out: Path) -> Setting | None:
    """The output's disk has room for next to nothing."""
    return _mount(subject, out, f"size={LITTLE}")


def forbid_writing(subject: Subject, out: Path) -> Setting | None:
    """The output's disk is read-only."""
    return _mount(subject, out, "ro,size=4k")


def _mount(subject: Subject, out: Path, options: str) -> Setting | None:
    place = out.with_name(f"{out.name}-disk")
    place.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(words, check=False).returncode:
        return None
    within = place / out.name
    if subject.name == "record":
        within = place
    return Setting(subject.words(within, again=False), within, clear=lambda: _unmount(place))


def _unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


def hide_shared_memory(subject: Subject, out: Path) -> Setting | None:
    """There is no /dev/shm."""
    hide = "umount /dev/shm && mount -t tmpfs -o ro,size=4k tmpfs /dev/shm"
    inner = f"{hide} && exec {_quote(subject, out)}"
    words = ["unshare", "-m", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*words, "umount /dev/shm"], check=False).returncode
    ):
        return None
    return Setting([*words, inner], out)


def hide_home(subject: Subject, out: Path) -> Setting:
    """HOME and the folder for temporary files lead nowhere."""
    nowhere = dict.fromkeys(("HOME", "TMPDIR", "MER_CACHE", "XDG_CACHE_HOME"), "/proc/nowhere")
    return Setting(subject.words(out, again=False), out, nowhere)


def close_output(subject: Subject, out: Path) -> Setting:
    """Whoever reads standard output goes away."""
    words = ["sh", "-c", f"{{ {_quote(subject, out)}; }} | true"]
    return Setting(words, out, may_die=True)


def run_twice(subject: Subject, out: Path) -> Setting:
    """Another process writes the same output."""
    one = _quote(subject, out)
    words = ["sh", "-c", f"{one} & {one}; code=$?; wait $! || true; exit $code"]
    return Setting(words, out, may_die=True)


def set_clock_back(subject: Subject, out: Path) -> Setting | None:
    """What an earlier run wrote is from the future."""
    first = subprocess.run(subject.words(out, again=False), capture_output=True, check=False)
    if first.returncode:
        return None
    later = time.time() + YEAR
    for path in (out, *out.rglob("*")):
        os.utime(path, (later, later))
    return Setting(subject.words(out, again=True), out)


def _quote(subject: Subject, out: Path) -> str:
    return shlex.join(subject.words(out, again=False))


CONDITIONS = (
    Condition("files of 300 kB at most", limit_files),
    Condition("a full disk", fill_disk, goes_on=False),
    Condition("a read-only disk", forbid_writing, goes_on=False),
    Condition("32 open files", limit_handles),
    Condition("no /dev/shm", hide_shared_memory, must_work=True),
    Condition("no home, no temporary folder", hide_home, must_work=True),
    Condition("SIGPIPE", close_output),
    Condition("two processes, one output", run_twice),
    Condition("the clock set back", set_clock_back, must_work=True),
)
