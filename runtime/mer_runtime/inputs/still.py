"""Pictures from others' hands: JPEG and PNG, whose headers say how large they get."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

#: Pixels: 200 MB while it is decoded.
MOST_PIXELS = 1 << 26
#: How their files begin, and JPEG's markers of a frame's header (SOF; not DHT, JPG, DAC).
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_picture(data: bytes) -> NDArray[np.uint8] | None:
    """A picture (H, W, 3) uint8 RGB; None where it is none, damaged, or neither JPEG nor PNG.

    Raises:
        ValueError: it has more than ``MOST_PIXELS``.
    """
    size = read_size(data)
    if size is None:
        return None
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels are more than {MOST_PIXELS}")
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if decoded is None else np.asarray(decoded[..., ::-1], np.uint8)


def read_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG or JPEG says in its header; None where it is neither."""
    if data.startswith(PNG):
        width, height = struct.unpack_from(">II", data[:24].ljust(24, b"\0"), 16)
        return (width, height) if width and height else None
    if not data.startswith(JPEG):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind in FRAMES:  # length, precision, height, width
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (width, height) if width and height else None
        # Fill bytes stand alone; a segment says its length.
        at += 1 if kind == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
