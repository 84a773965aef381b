"""mer_runtime.engines.cache: keys, damage, folders, and several processes at once."""

from __future__ import annotations

import dataclasses
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mer_runtime.engines.builder import Progress
from mer_runtime.engines.cache import (
    MAGIC,
    EngineKey,
    load_or_build,
    read_engine,
    write_engine,
)
from mer_runtime.errors import MerWarning
from mer_runtime.store import CACHE_VARIABLE, NOWHERE, find_folder

KEY = EngineKey(
    graph="0" * 64,
    builder="tensorrt 10.3.0",
    device="Orin sm87",
    profile={"faces": ((1, 32, 32, 3), (15, 32, 32, 3), (15, 32, 32, 3))},
)
OTHERS = {
    "graph": "1" * 64,
    "builder": "tensorrt 11.4.1",
    "device": "Thor sm110",
    "profile": {"faces": ((1, 32, 32, 3), (8, 32, 32, 3), (8, 32, 32, 3))},
}

#: A process that wants an engine; its build says so in a file and takes ``seconds``.
SCRIPT = """
import hashlib, os, resource, sys, time
from pathlib import Path
from mer_runtime.engines.cache import EngineKey, load_or_build

folder, seconds, limit = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
key = EngineKey("0" * 64, "tensorrt 10.3.0", "Orin sm87", {})

def build(progress):
    with (folder.parent / "builds").open("a") as log:
        log.write("x")
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        time.sleep(0.05)
        # Two seconds of a user's patience, told faster.
        progress(20 * (time.monotonic() - start), "Timing graph nodes")
    return os.urandom(1 << 16)

if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print(hashlib.sha256(load_or_build("encoder", key, folder, build)).hexdigest())
"""


def returning(engine: bytes) -> Callable[[Progress], bytes]:
    return lambda progress: engine


def never(progress: Progress) -> bytes:
    raise AssertionError("built again")


def start(folder: Path, seconds: float, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(seconds), str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 30 s"
        time.sleep(0.01)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_builds_once(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    assert load_or_build("encoder", KEY, folder, returning(b"engine")) == b"engine"
    assert names(folder) == [KEY.file_name("encoder")]
    assert names(folder)[0].startswith("encoder-tensorrt-10.3.0-")
    assert load_or_build("encoder", KEY, folder, never) == b"engine"


@pytest.mark.parametrize("field", OTHERS)
def test_never_loads_an_engine_of_another_key(tmp_path: Path, field: str) -> None:
    other = dataclasses.replace(KEY, **{field: OTHERS[field]})
    load_or_build("encoder", KEY, tmp_path, returning(b"old"))
    # Not even under the name that the new one will have.
    (tmp_path / KEY.file_name("encoder")).rename(tmp_path / other.file_name("encoder"))
    assert load_or_build("encoder", other, tmp_path, returning(b"new")) == b"new"
    assert load_or_build("encoder", other, tmp_path, never) == b"new"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data + b"more",
        lambda data: b"",
        lambda data: b"an engine without a header",
        lambda data: MAGIC + b"\n{not json\n" + data,
        lambda data: MAGIC + b"\n[]\n" + data,
        lambda data: MAGIC + b"\n\xff\n" + data,
    ],
)
def test_builds_a_damaged_engine_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    load_or_build("encoder", KEY, tmp_path, returning(b"engine"))
    path = tmp_path / KEY.file_name("encoder")
    path.write_bytes(damage(path.read_bytes()))
    assert read_engine(path, KEY) is None
    assert load_or_build("encoder", KEY, tmp_path, returning(b"again")) == b"again"
    assert load_or_build("encoder", KEY, tmp_path, never) == b"again"


def test_replaces_an_engine_on_demand(tmp_path: Path) -> None:
    load_or_build("encoder", KEY, tmp_path, returning(b"refused"))
    build = returning(b"new")
    assert load_or_build("encoder", KEY, tmp_path, build, rebuild=True) == b"new"
    assert load_or_build("encoder", KEY, tmp_path, never) == b"new"


def test_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    stems = Path(KEY.file_name("encoder")).stem, Path(KEY.file_name("head")).stem
    ours, others = (tmp_path / f".{stem}.0123456789abcdef.part.engine" for stem in stems)
    ours.write_bytes(b"half an eng")
    others.write_bytes(b"half an eng")
    load_or_build("encoder", KEY, tmp_path, returning(b"engine"))
    assert not ours.exists()
    assert others.exists()  # it may be written at this moment


def test_works_without_a_cache_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.warns(MerWarning, match=rf"each start builds it again.*\${CACHE_VARIABLE}"):
        assert load_or_build("encoder", KEY, file / "engines", returning(b"a")) == b"a"


def test_a_full_disk_costs_only_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    process = start(folder, 0, limit=1000)  # bytes: the engine has 65 536
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(output.strip()) == 64
    assert "the engine can't be kept" in errors
    assert names(folder) == []


def test_failed_builds_leave_nothing(tmp_path: Path) -> None:
    def fail(progress: Progress) -> bytes:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        load_or_build("encoder", KEY, tmp_path, fail)
    assert names(tmp_path) == []


@pytest.mark.slow
def test_two_processes_build_one_engine(tmp_path: Path) -> None:
    processes = [start(tmp_path / "engines", 1.0) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert outputs[0] == outputs[1] != ""
    assert (tmp_path / "builds").read_text() == "x"
    assert len(names(tmp_path / "engines")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_waiting_process_takes_over(tmp_path: Path, number: signal.Signals) -> None:
    folder, builds = tmp_path / "engines", tmp_path / "builds"
    first = start(folder, 60)
    wait_for(builds.exists)
    second = start(folder, 0)
    # Long enough to meet the lock; if it hasn't yet, the test still holds.
    time.sleep(0.5)
    assert second.poll() is None
    first.send_signal(number)
    output, _ = second.communicate(timeout=60)
    first.communicate(timeout=60)
    assert len(output.strip()) == 64
    assert builds.read_text() == "xx"
    assert [Path(name).suffix for name in names(folder)] == [".engine"]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    process = start(folder, 60)
    wait_for((tmp_path / "builds").exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert names(folder) == []


def test_says_on_a_terminal_what_takes_long(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "engines"), "0.5", "0"]
    subprocess.run(command, stderr=follower, stdout=subprocess.DEVNULL, timeout=60, check=True)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    lines = [line.split("\x1b")[0] for line in shown.replace("\n", "").split("\r") if line]
    what = "building the tensorrt 10.3.0 engine of encoder for this device, once"
    assert lines[0] == f"{what}: Timing graph nodes (2 s)"
    assert shown.endswith("\n")
    assert len(lines) > 2


def test_is_silent_elsewhere(tmp_path: Path) -> None:
    _, errors = start(tmp_path / "engines", 0.5).communicate(timeout=60)
    assert errors == ""


def test_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_folder() == tmp_path / ".cache" / "mer-edge" / "engines"
    monkeypatch.setenv(CACHE_VARIABLE, "~/elsewhere")
    assert find_folder() == tmp_path / "elsewhere"


def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of their own, and nothing lies about where they are."""
    monkeypatch.setenv(CACHE_VARIABLE, "~nobody-by-this-name/engines")
    own = find_folder()
    assert read_engine(own / "a.engine", KEY) is None
    with pytest.raises(OSError, match="Not a directory"):
        write_engine(own / "a.engine", KEY, b"engine")
    with pytest.warns(MerWarning, match="each start builds it again"):
        assert load_or_build("a", KEY, own, lambda progress: b"engine") == b"engine"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_made_is_the_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    before = os.umask(0o002)
    try:
        load_or_build("encoder", KEY, folder, returning(b"engine"))
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert mode(folder / KEY.file_name("encoder")) == 0o600


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777])
def test_folder_that_others_write_to(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(bits)
    with pytest.warns(MerWarning, match=r"shared isn't used .*\$MER_CACHE"):
        assert find_folder() == NOWHERE
    (tmp_path / "shared").chmod(0o755)
    assert find_folder() == tmp_path / "shared"


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o660])
def test_file_that_others_write_to(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    write_engine(path, KEY, b"engine")
    path.chmod(bits)
    assert read_engine(path, KEY) is None
    path.chmod(0o644)
    assert read_engine(path, KEY) == b"engine"


def test_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.engine"
    write_engine(path, KEY, b"engine")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:  # who isn't root can't give a file away: be another instead
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert read_engine(path, KEY) is None
    os.chown(path, os.getuid(), -1)
    os.chown(tmp_path, 12345 if os.geteuid() == 0 else -1, -1)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.warns(MerWarning, match="others can write to it"):
        assert find_folder() == NOWHERE


def test_what_is_no_file_of_its_own(tmp_path: Path) -> None:
    write_engine(tmp_path / "there.engine", KEY, b"engine")
    (tmp_path / "link.engine").symlink_to(tmp_path / "there.engine")
    assert read_engine(tmp_path / "link.engine", KEY) is None
    os.mkfifo(tmp_path / "pipe.engine")
    assert read_engine(tmp_path / "pipe.engine", KEY) is None


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="taken"):
        write_engine(path, KEY, b"engine")
    assert names(tmp_path) == ["taken"]
