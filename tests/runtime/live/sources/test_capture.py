"""Sources as they are: files, pipes, servers that stall and vanish, devices that aren't there.

Cameras can't be had where the tests run, only their absence; a microphone is played by ALSA's
own ``file`` plugin.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from mer_runtime.live.sources import Capture, SourceError, camera, microphone, parse_source
from mer_runtime.live.sources import capture as capture_module

MakeClip = Callable[..., Path]
Start = Callable[..., Capture]


def finish(capture: Capture, seconds: float = 20.0) -> None:
    capture.join(seconds)
    assert not capture.running


def make_ts(make_clip: MakeClip, name: str = "live.ts", **options: Any) -> bytes:
    """A transport stream, which can be cut anywhere: an .mkv's content in another container."""
    import av

    clip = make_clip(Path(name).stem + ".mp4", audio_codec="aac", **options)
    out = clip.with_name(name)
    with av.open(str(clip)) as source, av.open(str(out), "w", format="mpegts") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return out.read_bytes()


class TestFiles:
    def test_fast_gives_every_frame_and_sample(
        self, make_clip: MakeClip, collector: Any, start: Start, read_frame_number: Any
    ) -> None:
        finish(start(parse_source(str(make_clip("clip.mkv", seconds=3.0))), "fast"))
        numbers = [read_frame_number(p.image()) for p in collector.pictures]
        assert numbers == list(range(90))
        times = [p.time for p in collector.pictures]
        assert times == pytest.approx(np.arange(90) / 30, abs=0.001)  # Matroska counts in ms
        assert sum(len(s.samples) for s in collector.sounds) == 3 * 48_000
        assert collector.sounds[0].samples.dtype == np.float32
        assert collector.states == ["opened", "ended"]

    def test_real_gives_each_when_it_is_due(
        self, make_clip: MakeClip, collector: Any, start: Start
    ) -> None:
        came: list[tuple[float, float]] = []
        keep = collector.take_picture

        def take(picture: Any) -> None:
            came.append((monotonic(), picture.time))
            keep(picture)

        collector.take_picture = take
        clip = str(make_clip(seconds=1.5))
        begun = monotonic()
        finish(start(parse_source(clip), "real"))
        # However late a busy machine shows the first, none comes before its time.
        assert all(at - begun >= time - came[0][1] for at, time in came)
        assert 1.3 < came[-1][0] - came[0][0] < 2.5

    def test_upright(self, make_clip: MakeClip, collector: Any, start: Start) -> None:
        clip = make_clip("turned.mov", size=(120, 160), rotation=90, audio=False)
        finish(start(parse_source(str(clip)), "fast"))
        assert collector.pictures[0].image().shape == (160, 120, 3)

    def test_one_kind_alone(self, make_clip: MakeClip, collector: Any, start: Start) -> None:
        clip = parse_source(str(make_clip()))
        capture = start(clip, "fast", video=False)
        finish(capture)
        assert (capture.has_video, capture.has_audio) == (False, True)
        assert not collector.pictures
        assert collector.sounds

    def test_frames_of_changing_size_and_rate(
        self, make_clip: MakeClip, collector: Any, start: Start, tmp_path: Path
    ) -> None:
        first = make_ts(make_clip, "a.ts", size=(160, 120), sample_rate=48_000)
        second = make_ts(
            make_clip,
            "b.ts",
            size=(320, 240),
            sample_rate=16_000,
            video_start=2.0,
            audio_start=2.0,
        )
        (tmp_path / "both.ts").write_bytes(first + second)
        finish(start(parse_source(str(tmp_path / "both.ts")), "fast"))
        assert {p.image().shape for p in collector.pictures} == {(120, 160, 3), (240, 320, 3)}
        assert {s.rate for s in collector.sounds} == {48_000, 16_000}

    def test_damaged_in_the_middle(
        self, make_clip: MakeClip, collector: Any, start: Start, tmp_path: Path
    ) -> None:
        content = bytearray(make_ts(make_clip, seconds=3.0))
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(2000)
        (tmp_path / "damaged.ts").write_bytes(content)
        finish(start(parse_source(str(tmp_path / "damaged.ts")), "fast"))
        assert len(collector.pictures) > 60
        assert collector.states == ["opened", "ended"]

    @pytest.mark.parametrize(
        ("content", "words"),
        [(None, "no such file"), (b"", "the file is empty"), (b"hello", "not a media stream")],
    )
    def test_not_media(
        self, tmp_path: Path, start: Start, content: bytes | None, words: str
    ) -> None:
        path = tmp_path / "x.mp4"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SourceError, match=words):
            start(parse_source(str(path)), "fast")

    def test_nothing_that_was_asked_for(self, make_clip: MakeClip, start: Start) -> None:
        with pytest.raises(SourceError, match="holds no video"):
            start(parse_source(str(make_clip("voice.wav"))), "fast", audio=False)


class TestPipes:
    def test_named_pipe_gets_another_writer(
        self, make_clip: MakeClip, collector: Any, start: Start, tmp_path: Path
    ) -> None:
        clip = make_clip("clip.mkv", seconds=1.0).read_bytes()
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        threading.Thread(target=pipe.write_bytes, args=(clip,), daemon=True).start()
        start(parse_source(str(pipe)))
        collector.wait_for("lost")
        first = len(collector.pictures)
        assert first == 30
        sleep(0.6)
        pipe.write_bytes(clip)
        collector.wait_for("reopened")
        collector.wait_for("lost", 2)
        times = [p.time for p in collector.pictures]
        assert len(times) == 60
        # The second writer's count begins at 0 again, the session's clock goes on.
        assert times[30] > times[0] + 0.6
        assert collector.states == ["opened", "lost", "reopened", "lost"]

    def test_writer_that_stalls(
        self, make_clip: MakeClip, collector: Any, start: Start, tmp_path: Path
    ) -> None:
        clip = make_clip("clip.mkv", seconds=2.0).read_bytes()
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)

        def write() -> None:
            with pipe.open("wb", buffering=0) as file:
                file.write(clip[: len(clip) // 2])
                collector.wait_for("stalled")
                file.write(clip[len(clip) // 2 :])

        threading.Thread(target=write, daemon=True).start()
        capture = start(parse_source(str(pipe)))
        deadline = monotonic() + 20
        while "resumed" not in collector.states and monotonic() < deadline:
            capture.watch()
            sleep(0.05)
        assert collector.states[:3] == ["opened", "stalled", "resumed"]
        assert collector.notices[1].reason == f"nothing for {capture_module.STALL_AFTER:g} s"

    def test_stop_ends_a_wait_for_a_writer(self, collector: Any, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        address = parse_source(str(tmp_path / "pipe"))
        capture = Capture(address, collector, start=monotonic(), pace="live")
        capture.open()
        assert not capture.wait_open(0.3)
        capture.stop()
        finish(capture, 2.0)
        assert capture.error is None


class TestServers:
    def test_vanishes_and_comes_back(
        self,
        make_clip: MakeClip,
        collector: Any,
        start: Start,
        serve: Any,
        http_answer: Any,
    ) -> None:
        stream = make_ts(make_clip, seconds=2.0)
        answer = http_answer(stream)
        # Refuses twice in between, by hanging up before it says anything.
        server = serve(answer, socket.socket.close, socket.socket.close, answer)
        start(parse_source(server.url()))
        collector.wait_for("reopened")
        collector.wait_for_pictures(90)
        assert collector.states[:3] == ["opened", "lost", "reopened"]
        assert server.connections >= 4
        assert "broke off" in collector.notices[1].reason
        # Half a second and a second: the waits between the three tries.
        assert collector.notices[2].time - collector.notices[1].time > 1.5

    def test_one_that_is_not_there_yet_is_waited_for(
        self, make_clip: MakeClip, collector: Any, start: Start, serve: Any, http_answer: Any
    ) -> None:
        stream = make_ts(make_clip, seconds=1.0)
        server = serve(socket.socket.close, socket.socket.close, http_answer(stream))
        capture = start(parse_source(server.url()), wait=True)
        collector.wait_for_pictures(30)
        assert collector.states[:2] == ["waiting", "opened"]
        assert collector.notices[0].reason
        assert not capture.waiting
        # Half a second and a second: the waits between the three tries.
        assert collector.notices[1].time - collector.notices[0].time > 1.4

    def test_waiting_comes_to_an_end(self, collector: Any) -> None:
        address = parse_source("http://127.0.0.1:1/x")
        options: dict[str, Any] = {"start": monotonic(), "pace": "live", "patience": 0.8}
        capture = Capture(address, collector, wait=True, **options)
        capture.open()
        finish(capture)
        assert str(capture.error) == "http://127.0.0.1:1/x: Connection refused"
        assert collector.states == ["waiting"]

    def test_truncated_answer(
        self, make_clip: MakeClip, collector: Any, start: Start, serve: Any, http_answer: Any
    ) -> None:
        stream = make_ts(make_clip, seconds=2.0)
        server = serve(http_answer(stream[: len(stream) // 2], length=len(stream)))
        start(parse_source(server.url()), patience=0)
        collector.wait_for("lost")
        assert 20 < len(collector.pictures) < 60

    def test_patience_comes_to_an_end(
        self, make_clip: MakeClip, collector: Any, start: Start, serve: Any, http_answer: Any
    ) -> None:
        server = serve(http_answer(make_ts(make_clip)), socket.socket.close)
        capture = start(parse_source(server.url()), patience=1.0)
        finish(capture)
        assert isinstance(capture.error, SourceError)
        assert "lost" in str(capture.error)
        assert server.connections >= 3

    def test_falls_silent(
        self, make_clip: MakeClip, collector: Any, start: Start, serve: Any, http_answer: Any
    ) -> None:
        stream = make_ts(make_clip, seconds=4.0)

        def stall(connection: socket.socket) -> None:
            http_answer(stream)(connection)
            server.hold(connection)

        server = serve(stall)
        capture = start(parse_source(server.url()), timeout=3.0, patience=0)
        while capture.running:
            capture.watch()
            sleep(0.05)
        # Frames that FFmpeg had kept may come out at the very end.
        assert collector.states[:2] == ["opened", "stalled"]
        assert collector.states[-1] == "lost"
        assert collector.notices[-1].reason == "doesn't answer for 3 s"

    @pytest.mark.parametrize("scheme", ["http", "rtsp"])
    def test_never_answers(self, collector: Any, start: Start, serve: Any, scheme: str) -> None:
        """It is our patience that ends, of a second, and not the server's or the test's."""
        gave_up = threading.Event()

        def hold(connection: socket.socket) -> None:
            server.hold(connection)
            gave_up.set()

        server: Any = serve(hold)
        url = server.url(scheme).replace("127", "user:secret@127")
        with pytest.raises(SourceError, match="doesn't answer for 1 s") as caught:
            start(parse_source(url), timeout=1.0)
        assert server.connections == 1
        assert not gave_up.is_set()
        assert "secret" not in str(caught.value)

    def test_refuses(self, collector: Any, start: Start) -> None:
        with pytest.raises(SourceError, match="refused"):
            start(parse_source("http://127.0.0.1:1/x"))

    def test_unknown_protocol(self, start: Start) -> None:
        with pytest.raises(SourceError, match="Protocol not found"):
            start(parse_source("carrier-pigeon://home"))

    def test_recording_on_a_server_ends(
        self, make_clip: MakeClip, collector: Any, start: Start, serve: Any, http_answer: Any
    ) -> None:
        stream = make_ts(make_clip)
        server = serve(http_answer(stream, length=len(stream)))
        capture = start(parse_source(server.url()), "fast")
        finish(capture)
        assert capture.error is None
        assert collector.states == ["opened", "ended"]


class TestDevices:
    def test_no_camera(self, start: Start) -> None:
        with pytest.raises(SourceError, match="/dev/video77: there is no such camera"):
            start(camera("77"))

    def test_no_microphone(self, start: Start) -> None:
        with pytest.raises(SourceError, match="microphone nowhere: can't be opened"):
            start(microphone("nowhere"))

    def test_microphone(
        self, collector: Any, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks = np.arange(48_000) / 48_000
        tone = (0.5 * 32767 * np.sin(2 * np.pi * 440 * ticks)).astype("<i2")
        tone.tofile(tmp_path / "tone.raw")
        (tmp_path / "asound.conf").write_text(
            f'pcm.tone {{ type file slave.pcm "nothing" file "/dev/null" '
            f'infile "{tmp_path}/tone.raw" format "raw" }}\npcm.nothing {{ type null }}\n'
        )
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
        capture = start(microphone("tone"))
        deadline = monotonic() + 60
        while sum(len(s.samples) for s in list(collector.sounds)) < 4_800:  # they come one by one
            assert monotonic() < deadline
            sleep(0.05)
        capture.stop()
        heard = np.concatenate([s.samples for s in list(collector.sounds)])[:4_800]
        assert {s.rate for s in collector.sounds} == {48_000}
        # The loudest of a tenth of a second's frequencies, 10 Hz apart, is the tone.
        assert np.abs(np.fft.rfft(heard)).argmax() == 44
        assert np.abs(heard).max() == pytest.approx(0.5, abs=0.01)
