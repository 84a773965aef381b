"""Photo sets as folders and zip files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mer.data.photos import PHOTO_SIZE, load_photos
from mer.errors import CorpusError
from mer_runtime import MerWarning


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


def test_hidden_files_and_other_files_are_left_out(folder: Path, tmp_path: Path) -> None:
    """What macOS puts beside photos, in a folder and in a zip file; a photo without a suffix."""
    expected = load_photos(folder, "train")
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
            found = load_photos(source, "train")
        assert found.labels == expected.labels
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
