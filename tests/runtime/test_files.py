"""Graphs' files, plain and packed."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from mer_runtime import files
from mer_runtime.errors import OutputError
from mer_runtime.files import locked, make_folder, pack_graph, read_graph, replacing, write_file

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


def test_packed_bomb(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_UNPACKED", 1000)
    with pytest.raises(OSError, match=r"^encoder\.onnx\.gz can't be unpacked: it has more"):
        read_graph(packed)


class TestReplacing:
    def test_name_is_new_each_time(self, tmp_path: Path) -> None:
        """Links under names that were guessed, and what they point to, stay as they are."""
        target = tmp_path / "target"
        target.write_text("precious")
        path = tmp_path / "a.png"
        names = [f".a.{os.getpid()}.part.png", ".a.part.png", "a.part.png"]
        for name in names:
            (tmp_path / name).symlink_to(target)
        with replacing(path) as first, replacing(path) as second:
            assert first != second
            assert all(part.is_file() and not part.is_symlink() for part in (first, second))
            assert {first.parent, second.parent} == {tmp_path}
            assert first.suffix == ".png"
        write_file(path, "new")
        assert (path.read_text(), target.read_text()) == ("new", "precious")
        assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
            ["a.png", "target", *names]
        )

    def test_link_at_a_guessed_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even where somebody knows the name, what is there isn't written to."""
        monkeypatch.setattr("secrets.token_hex", lambda count: "known")
        target = tmp_path / "target"
        target.write_text("precious")
        (tmp_path / ".a.known.part.txt").symlink_to(target)
        with pytest.raises(OutputError, match=r"can't write .*a\.txt"):
            write_file(tmp_path / "a.txt", "new")
        assert target.read_text() == "precious"

    def test_link_at_the_output_itself_is_replaced(self, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.write_text("precious")
        (tmp_path / "a.txt").symlink_to(target)
        write_file(tmp_path / "a.txt", "new")
        assert (target.read_text(), (tmp_path / "a.txt").read_text()) == ("precious", "new")

    def test_mode(self, tmp_path: Path) -> None:
        before = os.umask(0o022)
        try:
            write_file(tmp_path / "a", "new")
            write_file(tmp_path / "b", "new", 0o600)
        finally:
            os.umask(before)
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o644, 0o600]

    @pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" * 200 + ".json", "a" * 300, "a\0b"])
    def test_long_and_impossible_names(self, name: str, tmp_path: Path) -> None:
        try:
            write_file(tmp_path / name, "new")
        except OutputError:
            assert not list(tmp_path.iterdir())
        else:
            assert [file.name for file in tmp_path.iterdir()] == [name]


def test_link_in_the_place_of_a_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "made")
    with locked(tmp_path / "lock"):
        assert not (tmp_path / "made").exists()


class TestMakeFolder:
    def test_with_those_above_it_and_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()

    @pytest.mark.parametrize("name", ["file", "file/below"])
    def test_a_file_has_the_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=f"can't write {tmp_path / name}: "):
            make_folder(tmp_path / name)
