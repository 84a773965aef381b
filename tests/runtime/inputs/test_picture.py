"""Frames shown as their display matrix and their pixels' shape say, in clips and streams."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.picture import LARGEST, FrameDrawer
from mer_runtime.live.sources import Picture, parse_source
from mer_runtime.spec import Spec

MakeClip = Callable[..., Path]
SPEC = Spec()
#: (a, b, c, d) of x' = a x + c y, y' = b x + d y: the eight ways to show a picture.
EIGHT = [(x, 0, 0, y) for x, y in itertools.product((1, -1), repeat=2)]
EIGHT += [(0, x, y, 0) for x, y in itertools.product((1, -1), repeat=2)]


def write_matrix(path: Path, matrix: tuple[float, float, float, float]) -> None:
    """Put a display matrix into the first track header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    for cell, value in zip((0, 1, 3, 4), matrix, strict=True):
        place = at + 4 * cell
        data[place : place + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


def corners() -> NDArray[np.uint8]:
    """Red, green, blue and white quarters, twice as wide as high."""
    picture = np.full((80, 160, 3), 255, np.uint8)
    picture[:40, :80] = (255, 0, 0)
    picture[:40, 80:] = (0, 255, 0)
    picture[40:, :80] = (0, 0, 255)
    return picture


def show(stored: NDArray[np.uint8], matrix: tuple[float, ...]) -> NDArray[np.uint8]:
    """The matrix's own words: pixel (x, y) goes to (a x + c y, b x + d y)."""
    a, b, c, d = (int(value) for value in matrix)
    ys, xs = np.indices(stored.shape[:2])
    x, y = a * xs + c * ys, b * xs + d * ys
    x, y = x - x.min(), y - y.min()
    shown = np.zeros((y.max() + 1, x.max() + 1, 3), np.uint8)
    shown[y, x] = stored
    return shown


def quarters(picture: NDArray[np.uint8]) -> list[list[int]]:
    """The colours in the middles of the four quarters, to whole levels of 128."""
    height, width = picture.shape[:2]
    found = [
        picture[height * j // 8, width * i // 8] for j, i in itertools.product((1, 7), repeat=2)
    ]
    return [(pixel > 127).astype(int).tolist() for pixel in found]


def stream_picture(path: Path) -> NDArray[np.uint8]:
    """A recording's first picture as a live session gets it."""
    from threading import Event

    from mer_runtime.live.sources.clock import RecordedClock
    from mer_runtime.live.sources.container import OpenSource

    address, stop = parse_source(str(path)), Event()
    with OpenSource(address, stop, video=True, audio=False, timeout=10.0) as source:
        for item in source.items(RecordedClock(stop, paced=False)):
            assert isinstance(item, Picture)
            return item.image()
    raise AssertionError("no picture")


def write_picture(path: Path, size: tuple[int, int], aspect: str | None = None) -> Path:
    """A second of ``corners`` in a stored size, perhaps with an aspect of its pixels."""
    import cv2

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        pixels = np.asarray(cv2.resize(corners(), size), np.uint8)
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("matrix", EIGHT)
def test_all_eight_orientations(matrix: tuple[int, int, int, int], make_clip: MakeClip) -> None:
    path = write_picture(make_clip().with_name("picture.mp4"), (160, 80))
    write_matrix(path, matrix)
    wanted = show(corners(), matrix)
    window = read_window(path, SPEC)
    assert window.frames is not None
    for picture in (window.frames[7], stream_picture(path)):
        assert picture.shape == wanted.shape
        assert quarters(picture) == quarters(wanted)


@pytest.mark.parametrize(
    ("matrix", "nearest"),
    [
        ((0.87, 0.5, -0.5, 0.87), (1, 0, 0, 1)),  # 30 degrees
        ((0.5, 0.87, -0.87, 0.5), (0, 1, -1, 0)),  # 60 degrees
        ((-2.0, 0.0, 0.1, 3.0), (-1, 0, 0, 1)),  # stretched and sheared
        ((0.0, 0.0, 0.0, 0.0), (1, 0, 0, 1)),
    ],
)
def test_other_matrices_count_as_the_nearest(
    matrix: tuple[float, float, float, float],
    nearest: tuple[int, int, int, int],
    tmp_path: Path,
) -> None:
    path = write_picture(tmp_path / "picture.mp4", (160, 80))
    write_matrix(path, matrix)
    window = read_window(path, SPEC)
    assert window.frames is not None
    assert quarters(window.frames[0]) == quarters(show(corners(), nearest))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize(
    ("size", "aspect", "shown"),
    [
        ((80, 80), "2/1", (80, 160)),
        ((160, 40), "1/2", (80, 160)),
        ((160, 80), None, (80, 160)),
        ((720, 576), "64/45", (576, 1024)),  # PAL, 16:9
        ((160, 80), "100/1", (80, 160)),  # not believed
    ],
)
def test_pixels_that_are_not_square(
    suffix: str,
    size: tuple[int, int],
    aspect: str | None,
    shown: tuple[int, int],
    tmp_path: Path,
) -> None:
    path = write_picture(tmp_path / f"picture{suffix}", size, aspect)
    window = read_window(path, SPEC)
    assert window.frames is not None
    for picture in (window.frames[7], stream_picture(path)):
        assert picture.shape == (*shown, 3)
        assert quarters(picture) == quarters(corners())


def test_turned_pixels_that_are_not_square(tmp_path: Path) -> None:
    """The pixels' shape is that of the stored picture: it turns with it."""
    path = write_picture(tmp_path / "picture.mp4", (80, 80), "2/1")
    write_matrix(path, (0, 1, -1, 0))
    window = read_window(path, SPEC)
    assert window.frames is not None
    assert window.frames.shape == (15, 160, 80, 3)
    assert quarters(window.frames[0]) == quarters(show(corners(), (0, 1, -1, 0)))


@pytest.mark.parametrize("size", [(3840, 2160), (2560, 1440), (1440, 2560), (7680, 1080)])
def test_large_pictures_are_scaled_down(size: tuple[int, int]) -> None:
    width, height = FrameDrawer().size(av.VideoFrame(*size, "yuv420p"))
    assert 0.99 * LARGEST < width * height <= 1.001 * LARGEST
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01)


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (1280, 720), (1, 1)])
def test_others_keep_their_size(size: tuple[int, int]) -> None:
    assert FrameDrawer().size(av.VideoFrame(*size, "yuv420p")) == size


def test_large_clip(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "picture.mp4", (3840, 2160))
    window = read_window(path, SPEC)
    assert window.frames is not None
    assert window.frames.shape == (15, 1080, 1920, 3)
    assert quarters(window.frames[0]) == quarters(corners())
    assert stream_picture(path).shape == (1080, 1920, 3)
