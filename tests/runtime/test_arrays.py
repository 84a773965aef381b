"""Arrays and archives from others' hands."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from mer_runtime.archives import read_members
from mer_runtime.arrays import read_array, read_arrays


def save(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32),
        np.zeros((2, 3, 4), np.uint8),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(["a", "äb"]),
        np.array(1.5),
        np.zeros((0, 3)),
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ],
)
def test_what_numpy_writes_is_read(array: Any) -> None:
    read = read_array(save(array))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    assert read.flags.writeable


class TestArray:
    @pytest.mark.parametrize(
        "array", [np.array([{}], object), np.zeros(2, [("a", "i4")]), np.zeros(2, complex)]
    )
    def test_kind(self, array: Any) -> None:
        content = io.BytesIO()
        np.save(content, array, allow_pickle=True)
        with pytest.raises(ValueError, match="header"):
            read_array(content.getvalue())

    def header(self, text: str, data: bytes = b"") -> bytes:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data

    @pytest.mark.parametrize(
        "shape", ["(1099511627776,)", "(-2, -2)", "(2,)", "(True,)", "(1 << 40,)", "(2.0,)", "4"]
    )
    def test_shape_that_is_not_that_of_the_data(self, shape: str) -> None:
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n"
        with pytest.raises(ValueError, match="header"):
            read_array(self.header(text, bytes(4)))

    @pytest.mark.parametrize(
        "text",
        ["", "{", "((((", "(" * 9000, "{'descr': '<f4'}", "__import__('os')", "{}" * 9],
    )
    def test_header_that_is_none(self, text: str) -> None:
        with pytest.raises(ValueError, match="header"):
            read_array(self.header(text))

    def test_any_cut_and_any_flipped_byte(self) -> None:
        """Each is an array or one kind of error."""
        whole = save(np.arange(5, dtype=np.float32))
        outcomes = set()
        for i in range(len(whole)):
            flipped = whole[:i] + bytes([whole[i] ^ 0x15]) + whole[i + 1 :]
            for content in (whole[:i], flipped):
                try:
                    read_array(content)
                    outcomes.add("read")
                except ValueError:
                    outcomes.add("refused")
        assert outcomes == {"read", "refused"}


class TestArchive:
    def test_only_what_is_wanted(self) -> None:
        content = archive(a=np.arange(3), b=np.array([{}], object))
        assert list(read_arrays(content, ["a"])) == ["a"]
        with pytest.raises(ValueError, match=r"b\.npy: its header"):
            read_arrays(content, ["a", "b"])
        with pytest.raises(ValueError, match="it lacks c"):
            read_arrays(content, ["a", "c"])

    def test_bomb(self) -> None:
        """A megabyte that would be a gigabyte."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made, made.open("a.npy", "w") as a:
            for _ in range(160):
                a.write(bytes(1 << 20))
        with pytest.raises(ValueError, match=r"a\.npy has more than"):
            read_arrays(file.getvalue(), ["a"])

    def test_many_small_bombs(self) -> None:
        zeros = np.zeros(50 << 20, np.uint8)
        content = archive(a=zeros, b=zeros, c=zeros)
        with pytest.raises(ValueError, match="have more than 128 MB"):
            read_arrays(content, ["a", "b", "c"])

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_uncommon_packing(self, method: int) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as made:
            made.writestr("a.npy", save(np.arange(3)))
        with pytest.raises(ValueError, match=r"a\.npy is packed in a way"):
            read_arrays(file.getvalue(), ["a"])

    def test_encrypted(self) -> None:
        content = bytearray(archive(a=np.arange(3)))
        entry = content.index(b"PK\x01\x02")
        content[entry + 8] |= 1
        with pytest.raises(ValueError, match=r"a\.npy is encrypted"):
            read_arrays(bytes(content), ["a"])

    def test_any_cut_and_any_flipped_byte(self) -> None:
        whole = archive(a=np.arange(50))
        for i in range(len(whole)):
            flipped = whole[:i] + bytes([whole[i] ^ 0x29]) + whole[i + 1 :]
            for content in (whole[:i], flipped):
                try:
                    read_arrays(content, ["a"])
                except ValueError:
                    continue

    def test_unwanted_members_are_not_unpacked(self) -> None:
        content = archive(a=np.arange(3), b=np.arange(3))
        assert [name for name, _ in read_members(content, "b.npy".__eq__, 1000)] == ["b.npy"]
