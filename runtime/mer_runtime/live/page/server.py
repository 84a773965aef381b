"""The page's HTTP server: one page, one stream of messages, one of pictures."""

from __future__ import annotations

import io
import json
import re
import secrets
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from ipaddress import ip_address
from threading import BoundedSemaphore, Lock, Thread
from time import monotonic, sleep
from typing import Any

from mer_runtime.errors import MerError
from mer_runtime.live.monitor import CONTENT_TYPE, Monitor
from mer_runtime.live.page.board import Board

#: Pictures a second that a viewer is sent at most.
PICTURE_RATE = 12
#: Seconds after which a viewer who takes nothing is let go, and between two signs of life.
VIEWER_TIMEOUT, HEARTBEAT = 10.0, 5.0
#: Connections at once: two for a viewer. One more takes the place of the longest without a request.
MAX_CONNECTIONS = 32
#: Seconds and bytes that a whole request may take, however it comes.
REQUEST_TIMEOUT, MAX_REQUEST = 5.0, 1 << 16
#: A Host header: a name or address, and a port.
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(:[0-9]{1,5})?")
BOUNDARY = "picture"

#: Paths, and the methods of ``_Handler`` that answer them.
ROUTES = {
    "/": "page",
    "/messages": "messages",
    "/pictures": "pictures",
    "/health": "health",
    "/metrics": "metrics",
}


class PageError(MerError, OSError):
    """The page can't be served: the port is taken, or the host isn't this machine's."""


class PageServer:
    """Serves a ``Board`` until it is closed; ``mer-run`` takes loopback by default.

    Whoever can reach the port sees the camera's picture: there is no password. On a loopback
    address requests that name another host are refused, so no web page can read it through a
    name of its own (DNS rebinding).

    Args:
        port: 0 takes a free one; see ``url``.
        greeting: what the page says of the session: ``bundle``, ``backend``, ``sources``,
            ``labels`` and ``window``, its seconds.

    Attributes:
        monitor: what ``/health`` and ``/metrics`` tell; a ``LiveSession`` puts its own there.

    Raises:
        PageError: the port is taken, or ``host`` isn't an address of this machine.
    """

    def __init__(self, port: int, host: str, greeting: Mapping[str, Any]) -> None:
        self.board = Board(greeting)
        try:
            self._server = _Server(host, port, self.board)
        except (OSError, OverflowError, ValueError) as error:  # a host like a..b is a ValueError
            reason = getattr(error, "strerror", None) or str(error)
            raise PageError(f"can't serve the page on {host}:{port}: {reason}") from error
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def monitor(self) -> Monitor | None:
        return self._server.monitor

    @monitor.setter
    def monitor(self, monitor: Monitor) -> None:
        self._server.monitor = monitor

    @property
    def url(self) -> str:
        """The page's address."""
        host, port = self._server.server_address[:2]
        name = str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/"

    def close(self) -> None:
        """Stop serving; viewers are told so first."""
        self.board.tell("end", {})
        self.board.close()
        sleep(1 / PICTURE_RATE)  # for the viewers' threads to send it
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Another server on the same port would share its viewers by chance.
    allow_reuse_port = False

    def __init__(self, host: str, port: int, board: Board) -> None:
        self.board = board
        self.monitor: Monitor | None = None
        self.page = (
            resources.files("mer_runtime.live.page").joinpath("page.html").read_text("utf-8")
        )
        self.room = BoundedSemaphore(MAX_CONNECTIONS)
        self._silent: dict[socket.socket, None] = {}  # no request yet, in order of their coming
        self._lock = Lock()
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        self.private = ip_address(str(address[0]).partition("%")[0]).is_loopback
        super().__init__((str(address[0]), port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.room.acquire(blocking=False) or self._make_room():
            with self._lock:
                self._silent[request] = None
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.heard(request)
            self.room.release()

    def heard(self, request: Any) -> None:
        """A connection's request is there whole, or the connection has ended."""
        with self._lock:
            self._silent.pop(request, None)

    def _make_room(self) -> bool:
        """End the connection that has been silent longest, where there is one."""
        with self._lock:
            oldest = next(iter(self._silent), None)
            if oldest is None:
                return False
            del self._silent[oldest]
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        return self.room.acquire(timeout=1.0)  # its thread lets go of it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = VIEWER_TIMEOUT

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Request(self.connection))

    def do_GET(self) -> None:
        self.server.heard(self.connection)
        self.connection.settimeout(VIEWER_TIMEOUT)
        path = self.path.partition("?")[0]
        hosts = self.headers.get_all("Host", [])
        if self.server.private and not (len(hosts) == 1 and _is_loopback(hosts[0])):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif path in ROUTES:
            getattr(self, f"send_{ROUTES[path]}")()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815  http.server's name

    def send_page(self) -> None:
        # Only what stands in the page itself may run, and it may load from here alone.
        nonce = secrets.token_urlsafe(16)
        body = self.server.page.replace("NONCE", nonce).encode()
        own = f"'nonce-{nonce}'"
        self._send(
            "text/html; charset=utf-8",
            body,
            Content_Security_Policy=f"default-src 'none'; script-src {own}; style-src {own}; "
            "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'",
        )

    def send_health(self) -> None:
        """200 where all is well, else 503: what load balancers and container hosts ask."""
        monitor = self.server.monitor
        health = {"status": "starting"} if monitor is None else monitor.describe_health()
        status = HTTPStatus.OK if health["status"] == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        self._send("application/json", f"{json.dumps(health)}\n".encode(), status)

    def send_metrics(self) -> None:
        monitor = self.server.monitor
        self._send(CONTENT_TYPE, (monitor.render_metrics() if monitor else "").encode())

    def send_messages(self) -> None:
        board = self.server.board
        self._head("text/event-stream")
        if self.command == "HEAD":
            return
        self.wfile.write(board.greeting.encode())
        number = 0
        while True:
            closed = board.closed
            number, messages = board.messages(number, HEARTBEAT)
            if closed and not messages:
                return
            # A comment, where there is nothing to say, finds out whether the viewer is there.
            self.wfile.write("".join(messages or [": still here\n\n"]).encode())
            self.wfile.flush()

    def send_pictures(self) -> None:
        board = self.server.board
        self._head(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        if self.command == "HEAD":
            return
        self.wfile.write(f"--{BOUNDARY}\r\n".encode())
        number = 0
        while not board.closed:
            due = monotonic() + 1 / PICTURE_RATE
            number, jpeg = board.jpeg(number, HEARTBEAT)
            if jpeg:
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                # Browsers show a picture when they see the next boundary.
                self.wfile.write(head.encode() + jpeg + f"\r\n--{BOUNDARY}\r\n".encode())
                self.wfile.flush()
            elif self._is_gone():
                return
            sleep(max(0.0, due - monotonic()))

    def _is_gone(self) -> bool:
        """Whether the viewer hung up, which writing would tell if there were a picture."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def log_message(self, format: str, *args: Any) -> None:
        """Standard error is for what matters."""

    def version_string(self) -> str:
        return "mer-run"

    def _send(
        self, kind: str, body: bytes, status: HTTPStatus = HTTPStatus.OK, **headers: str
    ) -> None:
        self._head(kind, status, Content_Length=str(len(body)), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, kind: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        # Another origin's page could show the camera in an <img> of its own.
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


class _Request(io.RawIOBase):
    """A connection's bytes until ``REQUEST_TIMEOUT`` is over: few now and then don't prolong it.

    ``readinto`` raises a ``TimeoutError`` then, or where there are more than ``MAX_REQUEST``.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = monotonic() + REQUEST_TIMEOUT
        self._left = MAX_REQUEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        patience = self._deadline - monotonic()
        if patience <= 0 or self._left <= 0:
            raise TimeoutError
        self._connection.settimeout(patience)
        count = self._connection.recv_into(buffer)
        self._left -= count
        return count


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine: localhost or a loopback address."""
    match = HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
