"""The page's server over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from time import monotonic, sleep
from typing import Any

import av
import cv2
import numpy as np
import pytest

from mer_runtime.live.monitor import Monitor
from mer_runtime.live.page import PageError, PageServer
from mer_runtime.live.page.board import HISTORY, PICTURE_SIDE
from mer_runtime.live.page.server import MAX_CONNECTIONS
from mer_runtime.live.sources import Notice, Picture
from mer_runtime.stream import StreamStatistics

GREETING = {"bundle": "ia", "backend": "engine 1", "sources": ["x"], "labels": ["calm", "happy"]}


@pytest.fixture
def page() -> Iterator[PageServer]:
    server = PageServer(0, "127.0.0.1", GREETING)
    yield server
    server.close()


def port(page: PageServer) -> int:
    return int(page.url.rstrip("/").rpartition(":")[2])


def get(page: PageServer, path: str, host: str | None = None) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", port(page), timeout=10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    return connection.getresponse()


def ask(page: PageServer, request: str) -> bytes:
    """What the server answers to bytes as they are."""
    with socket.create_connection(("127.0.0.1", port(page)), timeout=10) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    return answer


def picture(level: int, size: tuple[int, int] = (64, 48)) -> Picture:
    grey = np.full((size[1], size[0], 3), level, np.uint8)
    return Picture(av.VideoFrame.from_ndarray(grey, format="rgb24"), 0.0)


def read_message(response: HTTPResponse) -> tuple[str, dict[str, Any]]:
    """The next message that isn't a sign of life."""
    while True:
        lines = [response.readline().decode().rstrip("\n")]
        while lines[-1]:
            lines.append(response.readline().decode().rstrip("\n"))
        if lines[0].startswith("event: "):
            return lines[0][7:], json.loads(lines[1][6:])


def read_picture(response: HTTPResponse) -> Any:
    """The next picture (H, W, 3)."""
    while not (line := response.readline()).startswith(b"Content-Length"):
        assert line
    length = int(line.split(b":")[1])
    response.readline()
    return cv2.imdecode(np.frombuffer(response.read(length), np.uint8), cv2.IMREAD_COLOR)


def test_page_may_run_only_its_own_script(page: PageServer) -> None:
    first, second = get(page, "/"), get(page, "/")
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    body = first.read().decode()
    assert f'<script nonce="{nonce}">' in body
    assert "http://" not in body
    assert "https://" not in body
    assert nonce not in second.headers["Content-Security-Policy"]


def test_unknown_path_and_method(page: PageServer) -> None:
    assert get(page, "/../etc/passwd").status == 404
    connection = HTTPConnection("127.0.0.1", port(page), timeout=10)
    connection.request("POST", "/", body=b"x")
    assert connection.getresponse().status == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("192.168.1.5", 403),
        ("localhost:80@evil.example", 403),
        ("localhost@evil.example:80", 403),
        ("evil.example#localhost", 403),
        ("localhost:http", 403),
        ("[::1]evil.example:80", 403),
        ("[::1", 403),
        ("localhost/", 403),
    ],
)
def test_host_must_be_this_machine(page: PageServer, host: str, status: int) -> None:
    assert get(page, "/", host).status == status
    if status == 403:
        assert get(page, "/pictures", host).status == 403


@pytest.mark.parametrize(
    "lines", [[], ["localhost", "evil.example"], ["evil.example", "localhost"]]
)
def test_one_host_and_no_more(page: PageServer, lines: list[str]) -> None:
    told = "".join(f"Host: {host}\r\n" for host in lines)
    assert ask(page, f"GET / HTTP/1.1\r\n{told}\r\n").startswith(b"HTTP/1.0 403 ")


class TestMonitoring:
    """What load balancers, container hosts and Prometheus ask."""

    def test_before_a_session(self, page: PageServer) -> None:
        health = get(page, "/health")
        assert (health.status, json.load(health)) == (503, {"status": "starting"})
        assert get(page, "/metrics").read() == b""

    def test_of_a_session(self, page: PageServer) -> None:
        page.monitor = Monitor(0.48, StreamStatistics, lambda: 0, {"bundle": "ia"})
        page.monitor.take_notice(Notice("camera", "opened", "", 0.0))
        health = get(page, "/health")
        assert health.status == 200
        told = {"status": "ok", "answer_age": None, "sources": {"camera": "opened"}}
        assert json.load(health) == told
        page.monitor.take_notice(Notice("camera", "lost", "No such device", 1.0))
        health = get(page, "/health")
        assert (health.status, json.load(health)["status"]) == (503, "waiting")
        metrics = get(page, "/metrics")
        assert metrics.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b'\nmer_source_state{source="camera",state="lost"} 1\n' in metrics.read()


@pytest.mark.parametrize("path", ["/", "/messages", "/pictures", "/metrics", "/nothing"])
def test_head_is_answered_with_a_head_alone(page: PageServer, path: str) -> None:
    answer = ask(page, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 404" if path == "/nothing" else b"HTTP/1.0 200")
    assert body == b""


@pytest.mark.parametrize("path", ["/", "/messages", "/pictures"])
def test_other_origins_can_show_nothing(page: PageServer, path: str) -> None:
    """The camera's picture in an <img> of somebody else's page, say."""
    assert get(page, path).headers["Cross-Origin-Resource-Policy"] == "same-origin"


class TestSlowRequests:
    """As many connections as there may be, each of which sends a byte now and then."""

    @pytest.fixture
    def drip(self, page: PageServer) -> Iterator[list[socket.socket]]:
        address = ("127.0.0.1", port(page))
        dripping = [socket.create_connection(address) for _ in range(MAX_CONNECTIONS)]
        stop = threading.Event()

        def send() -> None:
            while not stop.wait(0.05):
                for connection in dripping:
                    with suppress(OSError):
                        connection.send(b"G")

        thread = threading.Thread(target=send)
        thread.start()
        sleep(0.2)  # until all are there
        yield dripping
        stop.set()
        thread.join()
        for connection in dripping:
            connection.close()

    def test_leave_room(self, page: PageServer, drip: list[socket.socket]) -> None:
        """Long before their time is over, for each that asks at once."""
        for _ in range(5):
            assert get(page, "/").status == 200

    def test_end(self, page: PageServer, drip: list[socket.socket]) -> None:
        for connection in drip:
            connection.settimeout(20)
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""


def test_request_without_an_end(page: PageServer) -> None:
    header = "X: " + "a" * 30_000 + "\r\n"
    with suppress(ConnectionResetError, BrokenPipeError):
        answer = ask(page, f"GET / HTTP/1.1\r\nHost: localhost\r\n{header * 100}\r\n")
        assert b" 200 " not in answer
    assert get(page, "/").status == 200


def test_messages_begin_with_what_was_said(page: PageServer) -> None:
    for i in range(HISTORY + 20):
        page.board.tell("answer", {"time": i})
    response = get(page, "/messages")
    assert response.headers["Content-Type"] == "text/event-stream"
    assert read_message(response) == ("hello", GREETING)
    times = [read_message(response)[1]["time"] for _ in range(HISTORY)]
    assert times == list(range(20, HISTORY + 20))
    page.board.tell("source", {"reason": "a\nb"})
    assert read_message(response) == ("source", {"reason": "a\nb"})


def test_pictures_are_the_latest(page: PageServer) -> None:
    page.board.show(picture(10), ())
    response = get(page, "/pictures")
    assert abs(int(read_picture(response)[20, 20, 0]) - 10) < 5  # as JPEG keeps grey
    for level in (50, 100, 200):
        page.board.show(picture(level), ())
    levels = [int(read_picture(response)[20, 20, 0])]
    while abs(levels[-1] - 200) > 5:
        levels.append(int(read_picture(response)[20, 20, 0]))
    assert levels == sorted(levels)


def test_large_pictures_are_shrunk(page: PageServer) -> None:
    page.board.show(picture(10, (1920, 1080)), ())
    assert read_picture(get(page, "/pictures")).shape == (405, PICTURE_SIDE, 3)


def test_slow_viewer_holds_nobody_up(page: PageServer) -> None:
    """One viewer reads nothing; showing goes on, and another sees the latest."""
    slow = socket.create_connection(("127.0.0.1", port(page)))
    slow.sendall(b"GET /pictures HTTP/1.0\r\nHost: localhost\r\n\r\n")
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
    for _ in range(40):  # more than the connection holds: waiting for the viewer would never end
        page.board.show(Picture(frame, 0.0), ())
        sleep(0.01)
    page.board.show(picture(90), ())
    assert abs(int(read_picture(get(page, "/pictures"))[20, 20, 0]) - 90) < 5
    slow.close()


def test_viewers_that_go_away_make_room(page: PageServer) -> None:
    """More viewers come and go, one after another, than may be there at once."""
    for _ in range(2 * MAX_CONNECTIONS):
        page.board.show(picture(10), ())
        deadline = monotonic() + 20
        while True:
            viewer = socket.create_connection(("127.0.0.1", port(page)))
            viewer.sendall(b"GET /pictures HTTP/1.0\r\nHost: localhost\r\n\r\n")
            try:
                answered = viewer.recv(100).startswith(b"HTTP/1.0 200")
            except ConnectionResetError:
                answered = False
            viewer.close()
            if answered:
                break
            assert monotonic() < deadline, "those that left still count"
            page.board.show(picture(10), ())
            sleep(0.05)


def test_too_many_viewers_are_turned_away(page: PageServer) -> None:
    viewers = [get(page, "/messages") for _ in range(MAX_CONNECTIONS)]
    with pytest.raises(OSError, match=r"(?i)reset|closed|remote"):
        get(page, "/messages")
    page.board.tell("answer", {"time": 1})
    for viewer in viewers:
        read_message(viewer)
        assert read_message(viewer) == ("answer", {"time": 1})


def test_end_is_told(page: PageServer) -> None:
    response = get(page, "/messages")
    read_message(response)
    threading.Timer(0.1, page.close).start()
    assert read_message(response) == ("end", {})
    assert response.read() == b""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_url_can_be_opened(host: str) -> None:
    try:
        page = PageServer(0, host, GREETING)
    except PageError:
        pytest.skip(f"this machine has no {host}")
    assert page.url.startswith("http://")
    page.close()


def test_port_is_taken(page: PageServer) -> None:
    with pytest.raises(PageError, match=rf"127.0.0.1:{port(page)}: Address already in use"):
        PageServer(port(page), "127.0.0.1", GREETING)


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_host_of_another_machine(host: str) -> None:
    with pytest.raises(PageError, match=f"can't serve the page on {host}"):
        PageServer(0, host, GREETING)
