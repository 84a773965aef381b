"""How many threads pay here: the cores that this process may run on, and its share of them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mer_runtime.errors import MerWarning

#: Linux's control groups: which this process is in, and where they are mounted.
MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may run on, or fewer where it may not use all their time.

    A container's quota of 1.5 cores counts as two: what is left of the second is used, too.
    """
    cores = present_cores()
    quota = read_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def present_cores() -> int:
    """Cores that this process may run on, whatever its quota."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bound_threads(threads: int | None) -> int:
    """``threads``, but no more than there are cores; by default ``usable_cores``.

    More would only take turns: an engine that has 64 threads for two cores is a hundred times
    slower.
    """
    cores = present_cores()
    if threads is not None and threads > cores:
        text = f"{threads} threads are more than this device's cores: {cores} are used"
        warnings.warn(text, MerWarning, stacklevel=3)
    return usable_cores() if threads is None else min(threads, cores)


def read_quota(groups: Path = GROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Cores' worth of time that the control groups grant, the least of them; None where all do."""
    quotas = []
    for controllers, group in _read_membership(membership):
        if not controllers:  # version 2
            roots, read = (groups, groups / "unified"), _read_second
        elif "cpu" in controllers.split(","):
            roots, read = (groups / controllers, groups / "cpu"), _read_first
        else:
            continue
        # In a container the group's own path may be the host's: its root holds the quota then.
        parts = Path(group.lstrip("/"))
        for root in roots:
            for folder in (root / parts, *(root / parent for parent in parts.parents)):
                with suppress(OSError, ValueError, IndexError):
                    quotas.append(read(folder))
    return min((quota for quota in quotas if quota is not None and quota > 0), default=None)


def _read_membership(file: Path) -> Iterator[tuple[str, str]]:
    """Controllers and group of each line ``number:controllers:group``."""
    with suppress(OSError):
        for line in file.read_text(errors="replace").splitlines():
            _, _, rest = line.partition(":")
            controllers, colon, group = rest.partition(":")
            if colon and ".." not in group:
                yield controllers, group


def _read_second(folder: Path) -> float | None:
    """Of version 2: ``max 100000``, or ``50000 100000``."""
    quota, period = (folder / "cpu.max").read_text().split()[:2]
    return None if quota == "max" else int(quota) / max(int(period), 1)


def _read_first(folder: Path) -> float | None:
    """Of version 1: -1 stands for none."""
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    period = int((folder / "cpu.cfs_period_us").read_text())
    return None if quota < 0 else quota / max(period, 1)
