"""Photo sets as folders and zip files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mer.data.photos import PHOTO_SIZE, load_photos, read_size
from mer.errors import CorpusError


def write_photo(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos of ``sad``, one of ``angry``, of other sizes and in colour."""
    root = tmp_path / "photos"
    ramp = np.arange(PHOTO_SIZE, dtype=np.uint8)[None].repeat(PHOTO_SIZE, axis=0) * 5
    write_photo(root / "train" / "sad" / "b.png", ramp)
    write_photo(root / "train" / "sad" / "a.png", np.full((96, 96), 40, np.uint8))
    red = np.zeros((PHOTO_SIZE, PHOTO_SIZE, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    write_photo(root / "train" / "angry" / "c.png", red)
    (root / "train" / "angry" / "notes.txt").write_text("not a photo")
    write_photo(root / "test" / "sad" / "d.jpg", np.full((48, 48), 90, np.uint8))
    return root


def test_reads_a_folder(folder: Path) -> None:
    photos = load_photos(folder, "train")
    assert photos.labels == ("angry", "sad")
    assert photos.classes.tolist() == [0, 1, 1]
    assert photos.pixels.shape == (3, PHOTO_SIZE, PHOTO_SIZE)
    assert photos.pixels.dtype == np.uint8
    assert (photos.pixels[0] == 76).all()  # red's share of grey: 0.299
    assert (photos.pixels[1] == 40).all()  # resized
    assert (photos.pixels[2] == np.arange(PHOTO_SIZE) * 5).all()
    assert len(load_photos(folder, "test").classes) == 1


def test_zip_file_reads_as_its_folder(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.*"):
            file.write(path, Path("fer2013") / path.relative_to(folder))
    expected, found = load_photos(folder, "train"), load_photos(archive, "train")
    assert found.labels == expected.labels
    assert (found.classes == expected.classes).all()
    assert (found.pixels == expected.pixels).all()


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no photos validation/LABEL"):
        load_photos(folder, "validation")
    text = tmp_path / "photos.zip"
    text.write_text("not an archive")
    for source in (text, tmp_path / "none"):
        with pytest.raises(CorpusError, match="neither a folder nor a zip file"):
            load_photos(source, "train")
    (folder / "train" / "sad" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(CorpusError, match=r"broken\.jpg is not a picture"):
        load_photos(folder, "train")


@pytest.mark.corpus
def test_shared_photos(shared: Path) -> None:
    photos = load_photos(shared / "data" / "fer2013-rest.zip", "test")
    assert photos.labels == ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert len(photos.classes) == len(photos.pixels) > 5_000
    assert np.bincount(photos.classes).min() > 50
    assert photos.pixels.std() > 30


def zipped(tmp_path: Path, *names: str, content: bytes = b"") -> Path:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, content)
    return archive


class TestHostile:
    """One error, little memory, and nothing written."""

    def picture(self, suffix: str = ".png") -> bytes:
        done, data = cv2.imencode(suffix, np.full((48, 48), 90, np.uint8))
        assert done
        return data.tobytes()

    def test_names_that_lead_out(self, tmp_path: Path) -> None:
        """They name an emotion, or are passed over; no file appears."""
        names = ["../train/sad/a.png", "/train/sad/b.png", "train/../c.png", "train/sad/d.png"]
        archive = zipped(tmp_path, *names, content=self.picture())
        assert load_photos(archive, "train").labels == ("..", "sad")
        assert list(tmp_path.iterdir()) == [archive]

    def test_any_cut_and_flipped_bytes(self, tmp_path: Path) -> None:
        archive = zipped(tmp_path, "train/sad/a.png", content=self.picture() + bytes(300))
        whole = archive.read_bytes()
        told = []
        for i in range(0, len(whole), 3):
            flipped = whole[:i] + bytes([whole[i] ^ 0x15]) + whole[i + 1 :]
            for content in (whole[:i], flipped):
                archive.write_bytes(content)
                try:
                    load_photos(archive, "train")
                except CorpusError as error:
                    told.append(str(error))
        assert all(len(line.splitlines()) == 1 for line in told)
        assert len(told) > 100

    def test_bomb(self, tmp_path: Path) -> None:
        archive = zipped(tmp_path, "train/sad/a.png", content=bytes(1 << 26))
        with pytest.raises(CorpusError, match=r"a\.png has more than"):
            load_photos(archive, "train")

    @pytest.mark.parametrize("suffix", [".png", ".jpg"])
    def test_enormous_picture(self, suffix: str, tmp_path: Path) -> None:
        """A few kilobytes that would be gigabytes: told by the header."""
        data = bytearray(self.picture(suffix))
        if suffix == ".png":
            data[16:24] = (60_000).to_bytes(4, "big") * 2
        else:
            frame = data.index(b"\xff\xc0") + 5
            data[frame : frame + 4] = b"\xff\xff\xff\xff"
        archive = zipped(tmp_path, f"train/sad/a{suffix}", content=bytes(data))
        with pytest.raises(CorpusError, match=r"is not a picture \(JPEG or PNG, of at most 4096"):
            load_photos(archive, "train")

    @pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".webp"])
    def test_another_format_under_that_name(self, suffix: str, tmp_path: Path) -> None:
        archive = zipped(tmp_path, "train/sad/a.png", content=self.picture(suffix))
        with pytest.raises(CorpusError, match=r"a\.png is not a picture"):
            load_photos(archive, "train")

    @pytest.mark.parametrize("suffix", [".png", ".jpg"])
    @pytest.mark.parametrize("size", [(1, 1), (17, 300), (4096, 3)])
    def test_size_in_the_header(self, suffix: str, size: tuple[int, int]) -> None:
        for colour in ((), (3,)):
            _, data = cv2.imencode(suffix, np.zeros((size[1], size[0], *colour), np.uint8))
            assert read_size(data.tobytes()) == size
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
        _, data = cv2.imencode(".jpg", np.zeros((size[1], size[0]), np.uint8), options)
        assert read_size(data.tobytes()) == size

    @pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
    def test_name_that_is_none(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match="neither a folder nor a zip file"):
            load_photos(tmp_path / name, "train")
