"""``mer-run`` on streams, as a user types it: real processes, pipes, signals, ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from click.testing import CliRunner
from refusals import check_refusal

from mer_runtime.cli import main

MakeClip = Callable[..., Path]

SCRIPT = Path(sys.executable).with_name("mer-run")
#: The bundle that ships.
BUNDLE = ("ia-compact-int8", "--threads", "1")
#: What ``StreamEvent.to_dict`` has, and docs/how-to/live.md describes.
FIELDS = {
    "time",
    "start",
    "end",
    "label",
    "probabilities",
    "face",
    "voice",
    "settled",
    "filled",
    "faces_found",
    "people",
    "box",
    "track",
    "audio_track",
    "notes",
    "age",
    "dropped",
}


def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SCRIPT, *BUNDLE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments: Any) -> Any:
    """In this process: for what ends before a stream begins."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def read_lines(output: str) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """Answers, the sources' states, and the statistics of the end."""
    lines = [json.loads(line) for line in output.splitlines()]
    assert "statistics" in lines[-1]
    answers = [line for line in lines[:-1] if "label" in line]
    states = [line["state"] for line in lines[:-1] if "label" not in line]
    return answers, states, lines[-1]["statistics"]


def test_json_lines(sample_clip: Path) -> None:
    process = start(sample_clip, "--pace", "fast", "--json")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    answers, states, statistics = read_lines(output)
    assert states == ["opened", "ended"]
    assert len(answers) == statistics["events"] >= 8
    assert all(set(answer) == FIELDS for answer in answers)
    assert answers[-1]["face"] is True
    assert answers[-1]["voice"] is True
    assert sum(answers[-1]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert all(line.startswith("Warning: ") for line in errors.splitlines())


def test_text(sample_clip: Path) -> None:
    process = start(sample_clip, "--pace", "fast", "--no-audio", "--hop", "0.96")
    output, errors = process.communicate(timeout=120)
    lines = output.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        [f"{0.96 * i:.2f}", "s"] for i in (1, 2, 3, 4)
    ]
    assert "no voice" in lines[3]
    assert "window 27% filled" in lines[0]
    assert "answers; 126 frames, 0 dropped" in errors


def test_standard_input(make_clip: MakeClip, portrait: Any) -> None:
    """A pipe that is written slowly is answered while it runs; its end is the end."""
    clip = make_clip("clip.mkv", size=(320, 240), seconds=3.0, picture=portrait).read_bytes()
    process = start("-", "--json", stdin=subprocess.PIPE)
    assert process.stdin is not None
    raw = process.stdin.buffer  # type: ignore[attr-defined]  # a text stream has one

    def feed() -> None:
        for i in range(0, len(clip), len(clip) // 20):
            raw.write(clip[i : i + len(clip) // 20])
            raw.flush()
            threading.Event().wait(0.1)
        raw.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert process.stdout is not None
    output = process.stdout.read()
    feeder.join()
    assert process.wait(30) == 0
    answers, states, statistics = read_lines(output)
    assert states[0] == "opened"
    assert states[-1] == "ended"
    assert len(answers) >= 3  # a busy machine skips hops
    assert statistics["frames"] == 90


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_cleanly(sample_clip: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = (sample_clip, "--pace", "real", "--json", "--record", tmp_path / "out.mp4")
    process = start(*arguments)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert "label" in lines[1]
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "statistics" in output.splitlines()[-1]
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(f"Recorded {tmp_path / 'out.mp4'}")
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(list(container.decode(video=0))) > 5


def test_signal_before_a_pipe_has_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = start(
        tmp_path / "pipe",
        "--serve",
        "0",
        "--record",
        tmp_path / "out.mp4",
    )
    assert process.stderr is not None
    while not process.stderr.readline().startswith("Page: "):
        pass
    threading.Event().wait(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Recorded" not in errors
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_reader_that_goes_away(sample_clip: Path, tmp_path: Path) -> None:
    """As ``mer-run ... | head -1``: it ends, and the recording is finished."""
    arguments = (sample_clip, "--pace", "real", "--record", tmp_path / "out.mp4")
    process = start(*arguments)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_page(sample_clip: Path) -> None:
    process = start(sample_clip, "--pace", "real", "--serve", "0")
    assert process.stderr is not None
    line = process.stderr.readline()
    while not line.startswith("Page: "):
        line = process.stderr.readline()
    url = line.removeprefix("Page: ").strip()
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url + "messages", timeout=30) as response:
        told = response.read().decode()  # until the session ends
    assert '"bundle": "ia-compact-int8"' in told
    assert told.count("event: answer") >= 8
    assert told.endswith("event: end\ndata: {}\n\n")
    assert process.wait(30) == 0


def test_backend_auto_says_which(sample_clip: Path) -> None:
    pytest.importorskip("openvino")
    process = start(sample_clip, "--backend", "auto", "--json")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(output)["label"]
    lines = [line for line in errors.splitlines() if not line.startswith("Warning")]
    assert [line.split()[0] for line in lines] == ["onnxruntime", "openvino", "Backend:"]
    assert lines[2].removeprefix("Backend: ") in lines[0] + lines[1]


class TestBadInput:
    """One line on standard error; 1 for what isn't there, 2 for what was typed."""

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            ((), "SOURCE"),
            (("clip.mp4", "--hop", "0.48"), "--hop is for streams"),
            (("clip.mp4", "--no-audio"), "--no-audio is for streams"),
            (("clip.mp4", "--record", "x.mp4"), "--record is for streams"),
            (("clip.mp4", "--microphone"), "its own clock"),
            (("0", "--camera"), "a camera already"),
            (("0", "--pace", "real"), "--pace is for recordings"),
            (("0", "--no-video"), "nothing"),
            (("--microphone", "--no-audio"), "nothing"),
            (("--microphone", "/dev/video0"), "write it after SOURCE"),
            (("--microphone", "--camera-mode", "640x480"), "needs a camera"),
            (("0", "--camera-mode", "large"), "640x480@30"),
            (("0", "--overlay", "x.png"), "--record"),
            (("-", "--no-video", "--no-audio"), "leaves nothing"),
            (("-", "--serve", "99999"), "99999"),
            (("-", "--faces", "none"), "none"),
        ],
    )
    def test_options_that_do_not_go_together(self, arguments: tuple[str, ...], word: str) -> None:
        check_refusal(run("ia-compact-int8", *arguments), word, code=2)

    def test_hop_that_does_not_fit(self, sample_clip: Path) -> None:
        check_refusal(run(BUNDLE[0], sample_clip, "--pace", "fast", "--hop", "0.5"), "0.24, 0.48")

    def test_folder(self, tmp_path: Path) -> None:
        check_refusal(run("ia-compact-int8", tmp_path, "--pace", "fast"), "is a folder")

    def test_no_camera(self) -> None:
        check_refusal(
            run("ia-compact-int8", "/dev/video77"), "/dev/video77: there is no such camera"
        )

    def test_no_microphone(self) -> None:
        check_refusal(run("ia-compact-int8", "--microphone", "nowhere"), "microphone nowhere")

    def test_recording_elsewhere(self) -> None:
        check_refusal(run("ia-compact-int8", "0", "--record", "/nowhere/x.mp4"), "no such folder")
        check_refusal(run("ia-compact-int8", "0", "--record", "x.avi"), ".mp4")

    def test_url_that_never_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://user:secret@127.0.0.1:{server.getsockname()[1]}/live"
            result = run("ia-compact-int8", url, "--timeout", "1")
        check_refusal(result, "doesn't answer for 1 s")
        assert "secret" not in result.output

    def test_port_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            check_refusal(
                run("ia-compact-int8", "0", "--serve", port), f"127.0.0.1:{port}", "in use"
            )

    def test_standard_input_without_media(self) -> None:
        process = start("-", stdin=subprocess.DEVNULL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.splitlines()[-1].startswith("Error: standard input: not a media stream")

    def test_unknown_backend_for_the_bundle(self, sample_clip: Path) -> None:
        result = run("ia-compact-int8", sample_clip, "--backend", "tensorrt")
        check_refusal(result, "tensorrt can't run a bundle for onnx")
