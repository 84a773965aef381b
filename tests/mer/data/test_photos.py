"""Photo sets as folders and zip files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mer.data.photos import load_halves, load_photos, split_photos
from mer.errors import CorpusError
from mer_runtime import MerWarning
from mer_runtime.inputs.still import read_size

SIDE = 48


def write_photo(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos of ``sad``, one of ``angry``, which is red; one is larger."""
    root = tmp_path / "photos"
    ramp = np.arange(SIDE, dtype=np.uint8)[None].repeat(SIDE, axis=0) * 5
    write_photo(root / "train" / "sad" / "b.png", ramp)
    write_photo(root / "train" / "sad" / "a.png", np.full((96, 96), 40, np.uint8))
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    write_photo(root / "train" / "angry" / "c.png", red)
    (root / "train" / "angry" / "notes.txt").write_text("not a photo")
    write_photo(root / "test" / "sad" / "d.jpg", np.full((48, 48), 90, np.uint8))
    return root


def test_reads_a_folder(folder: Path) -> None:
    photos = load_photos(folder, "train", 64)
    assert photos.labels == ("angry", "sad")
    assert photos.classes.tolist() == [0, 1, 1]
    assert photos.pixels.shape == (3, 64, 64, 3)
    assert photos.pixels.dtype == np.uint8
    assert (photos.pixels[0] == (255, 0, 0)).all()  # RGB
    assert (photos.pixels[1] == 40).all()  # shrunk from 96 pixels
    assert photos.pixels[2][32].std() > 50  # enlarged to the others' side
    assert len(load_photos(folder, "test", 64).classes) == 1


def test_grey_and_small_photos_stay_so(folder: Path) -> None:
    """One channel where no photo has a colour; nothing is enlarged beyond the largest."""
    photos = load_photos(folder, "test", 224)
    assert photos.pixels.shape == (1, SIDE, SIDE, 1)
    (folder / "train" / "angry" / "c.png").unlink()
    grey = load_photos(folder, "train", SIDE)
    assert grey.pixels.shape == (2, SIDE, SIDE, 1)
    assert (grey.pixels[1, ..., 0] == np.arange(SIDE) * 5).all()


def test_halves_have_the_same_classes(folder: Path) -> None:
    """Counted for each half on its own, a class would mean another emotion in each."""
    with pytest.raises(CorpusError, match="angry stand in one of train and test alone"):
        load_halves(folder, 64)
    write_photo(folder / "test" / "angry" / "e.png", np.full((48, 48), 9, np.uint8))
    train, test = load_halves(folder, 64)
    assert train.labels == test.labels == ("angry", "sad")


def test_validation_photos_are_the_same_whatever_the_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(200):
        write_photo(
            tmp_path / "train" / "ab"[i % 2] / f"{i:03}.png",
            generator.integers(0, 256, (8, 8), np.uint8),
        )
    photos = load_photos(tmp_path, "train", 8)
    train, held = split_photos(photos)
    assert 5 <= len(held.classes) <= 40
    assert len(train.classes) + len(held.classes) == 200
    turned = photos.take(np.arange(200)[::-1])
    assert sorted(p.tobytes() for p in split_photos(turned)[1].pixels) == sorted(
        p.tobytes() for p in held.pixels
    )
    with pytest.raises(CorpusError, match="too few"):
        split_photos(photos.take(np.arange(1)))


def test_zip_file_reads_as_its_folder(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.*"):
            file.write(path, Path("fer2013") / path.relative_to(folder))
    expected, found = load_photos(folder, "train", 64), load_photos(archive, "train", 64)
    assert found.labels == expected.labels
    assert (found.classes == expected.classes).all()
    assert (found.pixels == expected.pixels).all()


def test_hidden_files_and_other_files_are_left_out(folder: Path, tmp_path: Path) -> None:
    """What macOS puts beside photos, in a folder and in a zip file; a photo without a suffix."""
    expected = load_photos(folder, "train", 64)
    (folder / "train" / "sad" / "b.png").rename(folder / "train" / "sad" / "b")
    for name in ("train/sad/._b.png", "train/__MACOSX/x.png", "train/.cache/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            if path.is_file():
                file.write(path, Path("fer2013") / path.relative_to(folder))
                file.write(path, Path("__MACOSX/fer2013") / path.relative_to(folder))
    for source in (folder, archive):
        with pytest.warns(MerWarning, match="left out: .*hidden, 1 not a picture"):
            found = load_photos(source, "train", 64)
        assert found.labels == expected.labels
        assert (found.pixels == expected.pixels).all()


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no photos validation/LABEL"):
        load_photos(folder, "validation", 64)
    text = tmp_path / "photos.zip"
    text.write_text("not an archive")
    for source in (text, tmp_path / "none"):
        with pytest.raises(CorpusError, match="neither a folder nor a zip file"):
            load_photos(source, "train", 64)
    (folder / "train" / "sad" / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(CorpusError, match=r"broken\.jpg is not a picture"):
        load_photos(folder, "train", 64)


@pytest.mark.corpus
def test_shared_photos(shared: Path) -> None:
    photos = load_photos(shared / "data" / "fer2013-rest.zip", "test", 224)
    assert photos.labels == ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert len(photos.classes) == len(photos.pixels) > 5_000
    assert np.bincount(photos.classes).min() > 50
    assert photos.pixels.shape[1:] == (48, 48, 1)
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
        """They are passed over, or name an emotion all the same; no file appears."""
        names = ["../train/sad/a.png", "/train/sad/b.png", "train/../c.png", "train/sad/d.png"]
        archive = zipped(tmp_path, *names, content=self.picture())
        assert load_photos(archive, "train", SIDE).labels == ("sad",)
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
                    load_photos(archive, "train", SIDE)
                except CorpusError as error:
                    told.append(str(error))
        assert all(len(line.splitlines()) == 1 for line in told)
        assert len(told) > 100

    def test_bomb(self, tmp_path: Path) -> None:
        archive = zipped(tmp_path, "train/sad/a.png", content=bytes(1 << 26))
        with pytest.raises(CorpusError, match=r"a\.png has more than"):
            load_photos(archive, "train", SIDE)

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
        with pytest.raises(CorpusError, match=r"\d+ x \d+ pixels are more than"):
            load_photos(archive, "train", SIDE)

    @pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".webp"])
    def test_another_format_under_that_name(self, suffix: str, tmp_path: Path) -> None:
        archive = zipped(tmp_path, "train/sad/a.png", content=self.picture(suffix))
        with pytest.raises(CorpusError, match=r"a\.png is not a picture"):
            load_photos(archive, "train", SIDE)

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
            load_photos(tmp_path / name, "train", SIDE)
