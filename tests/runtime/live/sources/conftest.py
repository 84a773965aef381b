"""A sink that keeps what it is given, and a server that behaves as badly as it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from mer_runtime.live.sources import Address, Capture, Notice, Picture, Sound


class Collector:
    """A sink."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.sounds: list[Sound] = []
        self.notices: list[Notice] = []
        self._more = threading.Condition()

    def take_picture(self, picture: Picture) -> None:
        self._keep(lambda: self.pictures.append(picture))

    def take_sound(self, sound: Sound) -> None:
        self._keep(lambda: self.sounds.append(sound))

    def take_notice(self, notice: Notice) -> None:
        self._keep(lambda: self.notices.append(notice))

    @property
    def states(self) -> list[str]:
        return [notice.state for notice in self.notices]

    def wait_for(self, state: str, count: int = 1, seconds: float = 20.0) -> None:
        """Wait until that state was reported so many times."""
        with self._more:
            came = self._more.wait_for(lambda: self.states.count(state) >= count, seconds)
        assert came, f"{state} wasn't reported {count} times, only {self.states}"

    def wait_for_pictures(self, count: int, seconds: float = 20.0) -> None:
        with self._more:
            came = self._more.wait_for(lambda: len(self.pictures) >= count, seconds)
        assert came, f"only {len(self.pictures)} of {count} pictures"

    def _keep(self, add: Callable[[], None]) -> None:
        with self._more:
            add()
            self._more.notify_all()


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def start(collector: Collector) -> Iterator[Callable[..., Capture]]:
    """A function that opens a source into ``collector`` and lets it flow."""
    captures = []

    def begin(address: Address, pace: str = "live", **options: object) -> Capture:
        capture = Capture(address, collector, start=monotonic(), pace=pace, **options)  # type: ignore[arg-type]
        captures.append(capture)
        capture.open()
        assert capture.wait_open(20.0)
        capture.start()
        return capture

    yield begin
    for capture in captures:
        capture.stop()
        capture.join(5.0)


Answer = Callable[[socket.socket], None]


class Server:
    """Listens on loopback; each connection is answered by the next of ``answers``, the last of
    them from then on."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def url(self, scheme: str = "http", path: str = "live.ts") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{path}"

    def close(self) -> None:
        self._closing.set()
        self._listener.close()

    def hold(self, connection: socket.socket) -> None:
        """Say nothing, for as long as the test runs."""
        self._closing.wait(60)

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            answer = self._answers[min(self.connections, len(self._answers) - 1)]
            self.connections += 1
            threading.Thread(target=self._reply, args=(connection, answer), daemon=True).start()

    def _reply(self, connection: socket.socket, answer: Answer) -> None:
        try:
            with connection:
                answer(connection)
        except OSError:
            pass  # the client hung up


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers = []

    def begin(*answers: Answer) -> Server:
        server = Server(*answers)
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.close()


def send_http(body: bytes, *, length: int | None = None) -> Answer:
    """Answer a request with ``body``, of which ``length`` bytes are promised, or none."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        promise = "" if length is None else f"Content-Length: {length}\r\n"
        head = f"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n{promise}\r\n"
        connection.sendall(head.encode() + body)

    return answer


@pytest.fixture(scope="session")
def http_answer() -> Callable[..., Answer]:
    return send_http
