"""The examples that take a stream's JSON lines: their servers are real sockets."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def lines(sample_clip: Path) -> str:
    """What ``mer-run`` prints of the sample, taken for a stream."""
    script = Path(sys.executable).with_name("mer-run")
    command = [script, "ia-int8", sample_clip, "--pace", "fast", "--json", "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run(example: str, lines: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.run(
        command, input=lines, capture_output=True, text=True, check=False, timeout=120
    )


class TestWebhook:
    @pytest.fixture
    def posted(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """A server's URL, and what it was sent."""
        got: list[dict[str, Any]] = []

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Hook)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", got
        server.shutdown()
        server.server_close()

    def test_posts_changes(self, lines: str, posted: Any) -> None:
        url, got = posted
        done = run("webhook.py", lines, url)
        assert (done.returncode, done.stderr) == (0, "")
        answers = [one for one in map(json.loads, lines.splitlines()) if one.get("label")]
        sure = [one for one in answers if one["probabilities"][one["label"]] >= 0.5]
        assert got
        assert got[0] == sure[0]
        assert all(one in sure for one in got)
        labels = [one["label"] for one in got]
        assert all(one != following for one, following in pairwise(labels))

    def test_server_that_is_not_there(self, lines: str) -> None:
        done = run("webhook.py", lines, "http://127.0.0.1:1/")
        assert done.returncode == 0
        assert "Connection refused" in done.stderr


class Broker:
    """As much of MQTT 3.1.1's other end as takes one client's messages."""

    def __init__(self) -> None:
        self.will: tuple[str, str] | None = None
        self.messages: list[tuple[str, str, bool]] = []  # topic, payload, retained
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener, connection.makefile("rb") as file:
            while head := file.read(1):
                kind, flags = head[0] >> 4, head[0] & 15
                body = file.read(self._read_length(file))
                if kind == 1:  # CONNECT: behind ten bytes of protocol the client's name
                    _, rest = self._take(body[10:])
                    topic, rest = self._take(rest)
                    self.will = topic.decode(), self._take(rest)[0].decode()
                    connection.sendall(b"\x20\x02\x00\x00")
                elif kind == 3:  # PUBLISH
                    name, rest = self._take(body)
                    if flags & 6:
                        connection.sendall(b"\x40\x02" + rest[:2])
                        rest = rest[2:]
                    self.messages.append((name.decode(), rest.decode(), bool(flags & 1)))
                elif kind == 14:  # DISCONNECT
                    return

    @staticmethod
    def _read_length(file: Any) -> int:
        length, shift = 0, 0
        while True:
            byte = file.read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return length

    @staticmethod
    def _take(body: bytes) -> tuple[bytes, bytes]:
        """A field that its length comes before, and the rest."""
        end = 2 + int.from_bytes(body[:2], "big")
        return body[2:end], body[end:]


class TestMqtt:
    def test_publishes_answers_and_states(self, lines: str) -> None:
        pytest.importorskip("paho.mqtt")
        broker = Broker()
        done = run("mqtt_publisher.py", lines, broker.address)
        assert (done.returncode, done.stderr) == (0, "")
        broker.thread.join(30)
        assert broker.will == ("mer/online", "false")
        told = [json.loads(line) for line in lines.splitlines()]
        sent = {
            topic: [json.loads(text) for name, text, _ in broker.messages if name == topic]
            for topic in ("mer/answer", "mer/source", "mer/online")
        }
        assert sent["mer/answer"] == [one for one in told if "label" in one]
        assert sent["mer/source"] == [one for one in told if "state" in one]
        assert sent["mer/online"] == [True, False]
        assert {topic for topic, _, retained in broker.messages if retained} == {
            "mer/source",
            "mer/online",
        }

    def test_broker_that_is_not_there(self, lines: str) -> None:
        pytest.importorskip("paho.mqtt")
        done = run("mqtt_publisher.py", lines, "127.0.0.1:1")
        assert done.returncode == 1
        assert done.stderr.strip().endswith("Connection refused")
