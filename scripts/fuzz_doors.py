"""What comes in while we run: pushes, options, requests, a user's detector."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzz_bundles import SHIPPED, Zeros
from fuzzing import ALLOWED_PLACES, Subject, mutants, names
from mer_runtime.bundle import load_bundle
from mer_runtime.errors import MerError
from mer_runtime.inputs.face import Box, YuNetDetector
from mer_runtime.live.page import PageServer
from mer_runtime.recognizer import Recognizer
from mer_runtime.spec import Detector
from mer_runtime.stream.recognizer import StreamRecognizer

Prepared = tuple[SearchStrategy[Any], Callable[[Any], object]]


class Anywhere:
    """A detector that finds a face in every picture."""

    name: Detector = "haar"

    def detect_all(self, frame: Any) -> list[Box]:
        return [Box(0, 0, frame.shape[1], frame.shape[0])]

    def detect(self, frame: Any) -> Box | None:
        return self.detect_all(frame)[0]


def pushes(folder: Path) -> Prepared:
    bundle = load_bundle(SHIPPED)
    times = st.floats() | st.floats(-5, 20) | st.sampled_from((1e25, -1e25, 1e10, 0, "1", None))
    sides = st.sampled_from((0, 1, 2, 48, 64))
    shapes = st.tuples(sides, sides, st.sampled_from((1, 3, 4)))
    kinds = st.sampled_from((np.uint8, np.float32, np.int16, np.float64, object))
    rates = st.sampled_from((0, -1, 1, 8000, 16_000, 48_000, 192_000, 768_000, 1 << 31, 0.5, None))
    counts = st.sampled_from((0, 1, 100, 4800, 48_000))
    levels = st.sampled_from((0.0, 0.5, -1.0, 1e30, float("nan"), float("inf")))
    frame = st.tuples(st.just("frame"), times, shapes, kinds)
    sound = st.tuples(st.just("sound"), times, counts, rates, levels)
    work = st.lists(st.lists(frame | sound, max_size=12), min_size=1, max_size=3)

    def push(stream: StreamRecognizer, items: list[Any]) -> None:
        for item in items:
            with suppress(MerError):
                if item[0] == "frame":
                    stream.push_frame(np.ones(item[2]).astype(item[3]), item[1])
                else:
                    stream.push_audio(np.full(item[2], item[4], np.float32), item[3], item[1])

    def take(case: tuple[list[list[Any]], bool]) -> None:
        plans, live = case
        recognizer = Recognizer(bundle, Zeros(bundle), Anywhere())
        failures: list[BaseException] = []

        def guarded(plan: list[Any]) -> None:
            try:
                push(stream, plan)
            except BaseException as error:  # noqa: BLE001  raised again below
                failures.append(error)

        with np.errstate(all="ignore"), StreamRecognizer(recognizer, live=live) as stream:
            threads = [threading.Thread(target=guarded, args=(plan,)) for plan in plans]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            stream.finish()
            for event in stream.events():
                assert (
                    event.probabilities is None
                    or np.isfinite(list(event.probabilities.values())).all()
                )
        if failures:
            raise failures[0]

    return st.tuples(work, st.booleans()), take


def options(folder: Path) -> Prepared:
    """Command lines that measure, train and export nothing: they end at what isn't there."""
    from click.testing import CliRunner

    from mer.cli import evaluate, prepare, train
    from mer_bench import command as bench
    from mer_export import cli as export
    from mer_runtime.cli import command as run

    commands: list[Any] = [
        run.main,
        bench.main,
        prepare.main,
        train.main,
        evaluate.main,
        export.main,
    ]
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    Path("a.json").write_text("{}")
    Path("empty").mkdir()
    flags = sorted(
        {
            flag
            for command in commands
            for one in command.params
            for flag in one.opts
            if flag[0] == "-"
        }
        - {"--serve", "--host", "--camera", "--microphone"}
    )
    values = names.map(lambda name: name.lstrip("/~").replace("..", "")) | st.sampled_from(
        (
            "0",
            "-1",
            "1",
            "1e9",
            "nan",
            "a.json",
            "empty",
            "nowhere",
            "a,b",
            "",
            "10%",
            "auto",
            "int8",
        )
    )
    words = st.lists(st.sampled_from(flags) | values, max_size=7)

    def take(case: tuple[int, list[str]]) -> None:
        number, arguments = case
        result = CliRunner().invoke(commands[number], ["nowhere", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (0, 1, 2), result.exit_code
        lines = result.stderr.splitlines()
        assert sum(line.startswith("Error: ") for line in lines) <= 1, result.stderr

    return st.tuples(st.integers(0, len(commands) - 1), words), take


def requests(folder: Path) -> Prepared:
    page = PageServer(0, "127.0.0.1", {"bundle": "<b>", "sources": ["\x1b[2J"], "labels": ["a"]})
    place = ("127.0.0.1", int(page.url.rstrip("/").rpartition(":")[2]))
    ALLOWED_PLACES.add(place)
    good = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"

    def ask(request: bytes) -> bytes:
        with socket.create_connection(place, timeout=8) as connection:
            with suppress(ConnectionError):
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionError):
                while len(answer) < 200 and (part := connection.recv(4096)):
                    answer += part
        return answer

    def take(case: bytes) -> None:
        ask(case)
        assert ask(good).startswith(b"HTTP/1.0 200")

    paths = st.sampled_from((b"/", b"/messages", b"/pictures", b"/../x", b"*", b"http://a/"))
    methods = st.sampled_from((b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"\xff"))
    hosts = st.sampled_from(
        (b"localhost", b"localhost:80@a", b"[::1]", b"a", b"127.0.0.1:1")
    ) | st.binary(max_size=20)
    built = st.tuples(methods, paths, hosts, st.binary(max_size=30)).map(
        lambda parts: b"%s %s HTTP/1.1\r\nHost: %s\r\nX: %s\r\n\r\n" % parts
    )
    return built | mutants(good) | st.binary(max_size=200), take


def detectors(folder: Path) -> Prepared:
    """A file that a user, or a bundle, gives as YuNet."""
    from mer_runtime.inputs import face

    shipped = getattr(face, "SHIPPED_YUNET", None)
    aside = Path(__file__).resolve().parents[2] / "shared/models/face_detection_yunet_2023mar.onnx"
    whole = Path(shipped or aside).read_bytes()
    file = folder / "changed.onnx"

    def take(case: bytes) -> None:
        file.write_bytes(case)
        YuNetDetector(file)

    return mutants(whole) | mutants(whole[:3000]).map(lambda head: head + whole[3000:]), take


SUBJECTS = {
    "pushes": Subject(8, pushes),
    "command lines": Subject(10, options),
    "requests": Subject(14, requests),
    "detectors": Subject(1, detectors),
}
