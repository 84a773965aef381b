"""How many threads pay: affinity, and the quotas of control groups as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mer_runtime.engines import cores
from mer_runtime.errors import MerWarning

#: Files by path, what /proc/self/cgroup says, and the quota that follows.
CASES = {
    "v2": ({"box/cpu.max": "50000 100000"}, "0::/box\n", 0.5),
    "v2 without": ({"box/cpu.max": "max 100000"}, "0::/box\n", None),
    "v2 of a parent": (
        {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000", "a/b/c/cpu.max": "3 1"},
        "0::/a/b/c\n",
        1.5,
    ),
    "v2 in a container": ({"cpu.max": "100000 100000"}, "0::/\n", 1.0),
    "v2 with the host's path": ({"cpu.max": "100000 100000"}, "0::/../../docker/1\n", None),
    "v1": (
        {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "200000",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
        },
        "5:memory:/box\n4:cpu,cpuacct:/box\n",
        2.0,
    ),
    "v1 in a container": (
        {"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000"},
        "4:cpu,cpuacct:/docker/1\n",
        0.5,
    ),
    "v1 without": (
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "50000"},
        "4:cpu:/\n",
        None,
    ),
    "nonsense": ({"cpu.max": "much"}, "0::/\nx\n\xff\n", None),
    "nothing": ({}, "", None),
}


@pytest.mark.parametrize("name", CASES)
def test_quota(name: str, tmp_path: Path) -> None:
    files, membership, quota = CASES[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")
    (tmp_path / "membership").write_text(membership)
    assert cores.read_quota(tmp_path, tmp_path / "membership") == quota
    assert cores.read_quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(("quota", "usable"), [(None, 4), (0.2, 1), (1.0, 1), (1.5, 2), (9.0, 4)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 7}, raising=False)
    monkeypatch.setattr(cores, "read_quota", lambda: quota)
    assert cores.usable_cores() == usable
    assert cores.bound_threads(None) == usable
    assert cores.bound_threads(3) == 3  # asked for, so had
    with pytest.warns(MerWarning, match="64 threads are more than this device's cores: 4 are used"):
        assert cores.bound_threads(64) == 4
