"""systemd's protocol, over a real socket, from a real process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mer_runtime.live import systemd
from mer_runtime.live.systemd import Watchdog, notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield channel


def test_tells(manager: socket.socket) -> None:
    assert notify("READY=1", "STATUS=two\nlines")
    assert manager.recv(4096) == b"READY=1\nSTATUS=two lines"


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("Linux alone has them")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0mer-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@mer-{os.getpid()}")
        assert notify("READY=1")
        assert channel.recv(4096) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_a_manager(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_signs_of_life_come_in_time(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(systemd, "monotonic", lambda: now[0])
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    watchdog = Watchdog()
    for tenth in range(100):
        now[0] = 1 + tenth / 10
        watchdog.beat()
    assert [manager.recv(4096) for _ in range(10)] == 10 * [b"WATCHDOG=1"]
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_no_signs_where_another_process_is_watched(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    Watchdog().beat()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_service_tells(manager: socket.socket) -> None:
    """Ready as it waits for its camera, alive, and that it stops."""
    command = [Path(sys.executable).with_name("mer-run"), "ia-int8", "/dev/video77", "--wait"]
    environment = os.environ | {"WATCHDOG_USEC": "600000"}
    environment.pop("WATCHDOG_PID", None)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        told = []
        while told.count("WATCHDOG=1") < 3 or len(told) < 4:
            told.append(manager.recv(4096).decode())
        assert "READY=1\nSTATUS=/dev/video77 waiting" in told
        process.send_signal(signal.SIGTERM)
        while told[-1] != "STOPPING=1":
            told.append(manager.recv(4096).decode())
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "/dev/video77 waiting: there is no such camera" in errors
    finally:
        process.kill()
