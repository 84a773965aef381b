"""Nothing phones home: no command opens a connection, and engines leave no number for a device."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

#: What engines' makers recognise a device by.
IDENTIFIERS = re.compile(
    r"telemetry|device.?id|machine.?id|client.?id|consent|intel", re.IGNORECASE
)
#: Addresses of the network, in a trace of system calls.
CONNECTION = re.compile(r"(connect|sendto|sendmsg|bind)\(.*AF_INET")
COMMANDS = {
    "onnxruntime": ("mer_runtime.cli", "ia-compact-int8", "{clips}/01-01-03-01-01-01-05.mp4"),
    "openvino": (
        "mer_runtime.cli",
        "ia-compact-int8",
        "{clips}/01-01-03-01-01-01-05.mp4",
        "--backend",
        "openvino",
    ),
    "jobs": ("mer_runtime.cli", "ia-compact-int8", "{clips}", "--jobs", "2"),
    "self-test": ("mer_runtime.cli", "ia-compact-int8", "--self-test"),
    "prepare": ("mer.cli.prepare", "{clips}", "--out", "{out}/cache"),
    "bench": (
        "mer_bench.command",
        "ia-compact-int8",
        "--seconds",
        "0.01",
        "--clip",
        "{clips}/01-01-03-01-01-01-05.mp4",
    ),
}


@pytest.fixture
def clips(small_clip: Path, tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for actor in ("05", "06"):
        shutil.copy(small_clip, tmp_path / "clips" / f"01-01-03-01-01-01-{actor}.mp4")
    return tmp_path / "clips"


def can_trace() -> bool:
    try:
        return subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def tracing() -> Callable[[Path], list[str]]:
    """A command's start that notes every call that has to do with the network."""
    if not can_trace():
        pytest.skip("needs strace, and leave to use it")
    return lambda out: ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(out)]


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_sent_and_no_number_is_kept(
    clips: Path, tmp_path: Path, tracing: Callable[[Path], list[str]], name: str
) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    module, *arguments = COMMANDS[name]
    home = tmp_path / "home"
    home.mkdir()
    # Some keep silent where CI is set.
    environment = {n: v for n, v in os.environ.items() if n not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(home), "MER_CACHE": str(tmp_path / "kept")}
    code = f"from {module} import main; main()"
    words = [word.format(clips=clips, out=tmp_path) for word in arguments]
    command = [*tracing(tmp_path / "trace"), sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "trace").read_text(errors="replace").splitlines()
    assert [call for call in calls if CONNECTION.search(call)] == []
    kept = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert [path for path in kept if IDENTIFIERS.search(path)] == []
    assert kept == [], "our own cache was named elsewhere"


def list_written(trace: Path) -> set[Path]:
    """The files that a trace shows opened to be written; those without a name never had one."""
    lines = trace.read_text(errors="replace").splitlines()
    calls = "\n".join(line for line in lines if "O_TMPFILE" not in line)
    opened = re.findall(
        r'(?:open|openat|creat)\([^"\n]*"([^"]+)"[^\n]*O_(?:WRONLY|RDWR|CREAT)', calls
    )
    return {Path(file) for file in opened if not file.startswith(("/dev/", "/proc/"))}


@pytest.mark.parametrize(
    "arguments",
    [("{clip}",), ("{clip}", "--pace", "fast"), ("--self-test",), ("{clip}", "--record", "{out}")],
    ids=["clip", "stream", "self-test", "record"],
)
def test_nothing_is_kept_but_what_is_asked_for(
    small_clip: Path, tmp_path: Path, tracing: Callable[[Path], list[str]], arguments: Sequence[str]
) -> None:
    """Nothing about a clip: prepared graphs and passed proofs are of the bundle."""
    recording, kept = tmp_path / "out.mp4", tmp_path / "kept"
    work, passing = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    passing.mkdir()
    words = [word.format(clip=small_clip, out=recording) for word in arguments]
    if "--record" in words:
        words += ["--pace", "fast"]
    files = ["strace", "-f", "-qq", "-e", "trace=open,openat,creat", "-o", str(tmp_path / "trace")]
    code = "from mer_runtime.cli import main; main()"
    done = subprocess.run(
        [*files, sys.executable, "-B", "-c", code, "ia-compact-int8", *words],
        env=os.environ | {"MER_CACHE": str(kept), "HOME": str(work), "TMPDIR": str(passing)},
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = list_written(tmp_path / "trace")
    # Graphs pass through the temporary folder while an engine prepares them; Python tries it with
    # five bytes under a name of eight letters.
    passed = {file for file in written if passing in file.parents}
    names = {file.name for file in passed if not re.fullmatch("[a-z0-9_]{8}", file.name)}
    assert names <= {"optimised.onnx"}
    asked = {file for file in written if file.parent == tmp_path}
    assert {f for f in written - passed - asked if kept not in f.parents} == set()
    assert recording.exists() == bool(asked) == ("--record" in words)
    assert [path for path in (*work.rglob("*"), *passing.rglob("*")) if path.is_file()] == []
    assert small_clip.stem not in " ".join(path.name for path in kept.rglob("*"))


def test_the_trace_sees_a_connection(tmp_path: Path, tracing: Callable[[Path], list[str]]) -> None:
    code = (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    )
    subprocess.run([*tracing(tmp_path / "trace"), sys.executable, "-c", code], check=True)
    calls = (tmp_path / "trace").read_text().splitlines()
    assert [call for call in calls if CONNECTION.search(call)]
