"""Graphs' files, plain and packed."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from mer_runtime.files import pack_graph, read_graph

CONTENT = b"graph" + bytes(5000)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    (tmp_path / "encoder.onnx").write_bytes(CONTENT)
    return pack_graph(tmp_path / "encoder.onnx")


def test_packed_takes_the_place_of_plain(packed: Path, tmp_path: Path) -> None:
    assert packed.name == "encoder.onnx.gz"
    assert [file.name for file in tmp_path.iterdir()] == [packed.name]
    assert packed.stat().st_size < 100
    assert read_graph(packed) == CONTENT


def test_plain_is_read_as_it_is(tmp_path: Path) -> None:
    plain = tmp_path / "encoder.onnx"
    plain.write_bytes(gzip.compress(CONTENT))  # the name decides
    assert read_graph(plain) == plain.read_bytes()


def test_name_date_and_system_leave_no_trace(packed: Path, tmp_path: Path) -> None:
    other = tmp_path / "another.onnx"
    other.write_bytes(CONTENT)
    os.utime(other, (1e9, 1e9))
    assert pack_graph(other).read_bytes() == packed.read_bytes()
    # RFC 1952: magic, deflate, no flags, no date, best compression, unknown system.
    assert packed.read_bytes()[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 255])


@pytest.mark.parametrize("damage", ["cut", "changed", "plain"])
def test_damage_is_told_with_the_name(packed: Path, damage: str) -> None:
    whole = packed.read_bytes()
    middle = len(whole) // 2
    if damage == "cut":
        packed.write_bytes(whole[:middle])
    elif damage == "plain":
        packed.write_bytes(CONTENT)
    else:
        packed.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(OSError, match=r"^encoder\.onnx\.gz can't be unpacked: \S"):
        read_graph(packed)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_graph(tmp_path / "encoder.onnx.gz")
