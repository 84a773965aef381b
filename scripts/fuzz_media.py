"""Media files and streams of any container, whole, cut and changed."""

from __future__ import annotations

import itertools
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzzing import ODD_NUMBERS, Subject, mutants
from mer_runtime.errors import MerError
from mer_runtime.inputs.media import read_window
from mer_runtime.live.sources.address import parse_source
from mer_runtime.live.sources.clock import RecordedClock
from mer_runtime.live.sources.container import OpenSource
from mer_runtime.spec import Spec

Prepared = tuple[SearchStrategy[Any], Callable[[Any], object]]


#: Containers, and what is in them.
CLIPS = {
    "mp4": ("libx264", "aac"),
    "mkv": ("libx264", "pcm_s16le"),
    "avi": ("mpeg4", "pcm_s16le"),
    "webm": ("libvpx", "libopus"),
    "ts": ("libx264", "aac"),
    "wav": (None, "pcm_s16le"),
    "flac": (None, "flac"),
    "mp3": (None, "libmp3lame"),
    "ogg": (None, "libopus"),
    "gif": ("gif", None),
    "png": ("png", None),
}


def write_clip(path: Path, video: str | None, audio: str | None) -> bytes:
    """Half a second, 64 x 48, a tone."""
    options: dict[str, Any] = (
        {"format": "image2", "options": {"update": "1"}} if path.suffix == ".png" else {}
    )
    with av.open(str(path), "w", **options) as container:
        streams: list[tuple[Any, list[Any]]] = []
        if video:
            stream = container.add_stream(video, rate=10)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = {"gif": "rgb8", "png": "rgb24"}.get(video, "yuv420p")
            grey = np.full((48, 64, 3), 90, np.uint8)
            frames = [av.VideoFrame.from_ndarray(grey, "rgb24") for _ in range(5)]
            streams.append((stream, frames[:1] if video == "png" else frames))
        if audio:
            stream = container.add_stream(audio, rate=48_000, layout="mono")
            tone = np.sin(np.arange(24_000) / 20)[None].astype(np.float32) / 2
            frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            frame.sample_rate = 48_000
            streams.append((stream, [frame]))
        for stream, made in streams:
            for frame in (*made, None):
                container.mux(stream.encode(frame))
    return path.read_bytes()


def clips(folder: Path) -> dict[str, bytes]:
    return {
        suffix: write_clip(folder / f"whole.{suffix}", *codecs) for suffix, codecs in CLIPS.items()
    }


def containers(folder: Path) -> Prepared:
    whole = clips(folder)
    cuts = [
        (kind, data[: len(data) * i // 100]) for kind, data in whole.items() for i in range(100)
    ]
    pending = iter(cuts)
    spec = Spec()

    def read(suffix: str, content: bytes) -> None:
        file = folder / f"changed.{suffix}"
        file.write_bytes(content)
        read_window(file, spec)

    def take(case: tuple[str, bytes]) -> None:
        read(*case)
        # Cut at every percent of every container, along the way.
        for cut in itertools.islice(pending, 2):
            with suppress(MerError):
                read(*cut)

    kind = st.sampled_from(list(whole))
    return kind.flatmap(lambda one: st.tuples(st.just(one), mutants(whole[one]))), take


def headers(folder: Path) -> Prepared:
    """Pictures and sound of sizes, rates and channels that nobody has."""
    usual = (1, 2, 3, 8, 16, 24, 48, 64, 8000, 44_100, 48_000, 768_000)
    numbers = st.sampled_from(ODD_NUMBERS + usual + usual) | st.integers(0, 1 << 20)
    picture = (folder / "a.png", write_clip(folder / "a.png", "png", None))
    gif = (folder / "a.gif", write_clip(folder / "a.gif", "gif", None))
    spec = Spec()

    def take(case: tuple[str, tuple[int, ...]]) -> None:
        kind, (one, two, three, four) = case
        if kind == "wav":
            head = struct.pack(
                "<HHIIHH", three % 4, one & 0xFFFF, two & 0xFFFFFFFF, four & 0xFFFFFFFF, 2, 16
            )
            body = b"WAVEfmt " + struct.pack("<I", len(head)) + head
            body += b"data" + struct.pack("<I", four & 0xFFFFFFFF) + bytes(9600)
            file, content = folder / "a.wav", b"RIFF" + struct.pack("<I", len(body)) + body
        else:
            file, content = picture if kind == "png" else gif
            data = bytearray(content)
            if kind == "png":
                data[16:24] = struct.pack(">II", one & 0xFFFFFFFF, two & 0xFFFFFFFF)
            else:
                data[6:10] = struct.pack("<HH", one & 0xFFFF, two & 0xFFFF)
            content = bytes(data)
        file.write_bytes(content)
        read_window(file, spec)

    kinds = st.sampled_from(("wav", "png", "gif"))
    return st.tuples(kinds, st.tuples(numbers, numbers, numbers, numbers)), take


def streams(folder: Path) -> Prepared:
    whole = clips(folder)

    def take(case: tuple[str, bytes]) -> None:
        file = folder / f"changed.{case[0]}"
        file.write_bytes(case[1])
        stop = threading.Event()
        address = parse_source(str(file))
        with OpenSource(address, stop, video=True, audio=True, timeout=5.0) as source:
            for item in itertools.islice(source.items(RecordedClock(stop, paced=False)), 500):
                if hasattr(item, "image"):
                    item.image()

    kind = st.sampled_from(list(whole))
    return kind.flatmap(lambda one: st.tuples(st.just(one), mutants(whole[one]))), take


SUBJECTS = {
    "containers and cuts": Subject(14, containers),
    "picture and sound headers": Subject(8, headers),
    "streams": Subject(10, streams),
}
