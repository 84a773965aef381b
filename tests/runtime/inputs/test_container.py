"""Paths stay on this machine, and what a file may ask of it has bounds."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest

from mer_runtime import SourceError, parse_source
from mer_runtime.errors import MediaError
from mer_runtime.inputs import streams
from mer_runtime.inputs.container import MAX_PIXELS
from mer_runtime.inputs.listing import list_media
from mer_runtime.inputs.media import read_window
from mer_runtime.live.sources import Sound
from mer_runtime.live.sources.container import OpenSource
from mer_runtime.spec import Spec

MakeClip = Callable[..., Path]
SPEC = Spec()


class Listener:
    """A server on loopback that counts who comes, and answers what it was given."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answers: dict[str, bytes] = {}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2.0)
                request = connection.recv(4096)
                self.asked.append(request)
                path = request.split(b" ")[1].decode() if b" " in request else "/"
                body = self.answers.get(path, b"")
                head = (
                    f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                connection.sendall(head.encode() + body)

    def close(self) -> None:
        # On Linux, closing alone doesn't wake who waits in accept.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5.0)


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.close()


def read_live(source: str) -> list[Any]:
    """What a live session gets of a source, to its end."""
    from mer_runtime.live.sources.clock import RecordedClock

    stop = Event()
    with OpenSource(parse_source(source), stop, video=True, audio=True, timeout=5.0) as opened:
        return list(opened.items(RecordedClock(stop, paced=False)))


@pytest.mark.parametrize(
    "name",
    [
        "http:/127.0.0.1:{port}/x.mp4",
        "tcp:/127.0.0.1:{port}",
        "http:/127.0.0.1:{port}/x.mp4?listen=1",
        "12:30:05.mp4",
        "concat:a|b.mp4",
        "subfile,,start,0,end,9,,:x.mp4",
        "data:,x.mp4",
        "pipe:0",
        "-.mp4",
        "caf\udce9.mp4",
        "100 %d %% #?&.mp4",
    ],
)
def test_a_path_is_a_path(
    name: str,
    listener: Listener,
    make_clip: MakeClip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = name.format(port=listener.port)
    clip = make_clip(seconds=1.0)
    folder = tmp_path / "folder"
    (folder / name).parent.mkdir(parents=True)
    clip.rename(folder / name)
    monkeypatch.chdir(folder)
    assert parse_source(name).kind == "file"
    assert read_window(name, SPEC).frames is not None
    assert read_live(name)
    (found,) = list_media(Path()).clips
    assert read_window(found, SPEC).frames is not None
    assert listener.asked == []


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{url}'\n",
    "list.mpd": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4">'
        '<Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    ),
    "list.sdp": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ),
}


@pytest.mark.parametrize("suffix", ["", ".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("name", sorted(PLAYLISTS))
@pytest.mark.parametrize("target", ["http", "file"])
def test_playlists_are_not_followed(
    name: str, suffix: str, target: str, listener: Listener, make_clip: MakeClip, tmp_path: Path
) -> None:
    """Whatever the file is called, it names neither an address nor another file."""
    inner = make_clip("inner.ts", seconds=2.0)
    listener.answers["/inner.ts"] = inner.read_bytes()
    url = f"http://127.0.0.1:{listener.port}/inner.ts" if target == "http" else f"file:{inner}"
    path = tmp_path / (name + suffix)
    path.write_text(PLAYLISTS[name].format(url=url, port=listener.port))
    with pytest.raises(MediaError):
        read_window(path, SPEC)
    with pytest.raises(SourceError):
        read_live(str(path))
    assert listener.asked == []


def test_playlist_at_a_url_names_no_file(
    listener: Listener, make_clip: MakeClip, tmp_path: Path
) -> None:
    """A server may lead on to its own pieces, but not to this machine's files."""
    inner = make_clip("inner.ts", seconds=2.0)
    listener.answers["/inner.ts"] = inner.read_bytes()
    base = f"http://127.0.0.1:{listener.port}"
    for name, url in (("own", f"{base}/inner.ts"), ("ours", f"file:{inner}"), ("bare", str(inner))):
        text = PLAYLISTS["list.m3u8"].format(url=url)
        listener.answers[f"/{name}.m3u8"] = text.encode()
    assert read_live(f"{base}/own.m3u8")
    for name in ("ours", "bare"):
        with pytest.raises(SourceError):
            read_live(f"{base}/{name}.m3u8")


def test_url_stays_a_url(listener: Listener, make_clip: MakeClip) -> None:
    listener.answers["/clip.ts"] = make_clip("clip.ts", seconds=1.0).read_bytes()
    assert read_live(f"http://127.0.0.1:{listener.port}/clip.ts")
    assert listener.asked


@pytest.mark.parametrize("name", ["2024", "0", "rtsp:/camera/live", "mailbox"])
def test_what_exists_is_a_file_or_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    assert parse_source(name).kind == "file"
    assert parse_source(name.replace(":/", "://")).kind == "file"


# --- bounds ---------------------------------------------------------------------------------


def write_large(path: Path, size: tuple[int, int], *, audio: bool = False) -> Path:
    """A grey video that takes few bytes, perhaps with a tone."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound: Any = container.add_stream("aac", rate=16_000, layout="mono") if audio else None
        frame = av.VideoFrame.from_ndarray(
            np.full((size[1] * 3 // 2, size[0]), 128, np.uint8), format="yuv420p"
        )
        for i in range(2):
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            tone = 0.5 * np.sin(np.arange(32_000) * 0.2).astype(np.float32)
            voice = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            voice.sample_rate = 16_000
            container.mux(sound.encode(voice))
            container.mux(sound.encode(None))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
@pytest.mark.parametrize("audio", [False, True])
def test_enormous_pictures_are_not_decoded(suffix: str, audio: bool, tmp_path: Path) -> None:
    path = write_large(tmp_path / f"large{suffix}", (8000, 8000), audio=audio)
    if not audio:
        with pytest.raises(MediaError, match=rf"more than {MAX_PIXELS}"):
            read_window(path, SPEC)
        return
    window = read_window(path, SPEC)
    assert window.frames is None
    assert window.waveform is not None
    assert window.waveform.any()
    assert f"more than {MAX_PIXELS}" in window.notes[0]
    assert {type(item) for item in read_live(str(path))} == {Sound}


def write_wave(path: Path, rate: int, channels: int) -> Path:
    """A WAV file of 16 bits whose header says so, with a second's worth of bytes at most."""
    data = (np.random.default_rng(0).integers(-9999, 9999, 40_000)).astype("<i2").tobytes()
    data = data[: len(data) // (2 * channels) * 2 * channels]
    head = struct.pack(
        "<HHIIHH", 1, channels, rate, rate * channels * 2 % 2**32, channels * 2 % 2**16, 16
    )
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + head
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )
    return path


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1, 2**31, 2**32 - 1])
def test_rates_that_are_not_believed(rate: int, tmp_path: Path) -> None:
    path = write_wave(tmp_path / "clip.wav", rate, 1)
    with pytest.raises(MediaError):
        read_window(path, SPEC)
    with pytest.raises(SourceError):
        read_live(str(path))


@pytest.mark.parametrize("rate", [1_000, 8_000, 192_000, 768_000])
def test_rates_that_are(rate: int, tmp_path: Path) -> None:
    window = read_window(write_wave(tmp_path / "clip.wav", rate, 1), SPEC)
    assert window.waveform is not None
    assert window.waveform.any()


@pytest.mark.parametrize(("channels", "fits"), [(8, True), (64, True), (65, False), (500, False)])
def test_numbers_of_channels(channels: int, fits: bool, tmp_path: Path) -> None:
    path = write_wave(tmp_path / "clip.wav", 16_000, channels)
    if fits:
        assert read_window(path, SPEC).waveform is not None
        assert read_live(str(path))
        return
    with pytest.raises(MediaError):
        read_window(path, SPEC)


def test_want_of_memory_is_the_clips_error(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(seconds=1.0)

    def fail(self: object, *arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(streams.MediaStreams, "decode", fail)
    with pytest.raises(MediaError, match="memory"):
        read_window(path, SPEC)
