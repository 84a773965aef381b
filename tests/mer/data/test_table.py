import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mer.data.corpus import find_recordings, list_corpus
from mer.data.splits import FOLDS, PARTS
from mer.data.table import SPLIT_NAMES
from mer.errors import CorpusError
from mer_runtime.spec import RAVDESS_LABELS

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a table beside four empty files."""
    (tmp_path / "more").mkdir()
    for name in ("a.mp4", "b.mp4", "c.wav", "more/a.mp4"):
        (tmp_path / name).touch()

    def do(*lines: str) -> Path:
        table = tmp_path / "table.csv"
        table.write_text("\n".join(lines) + "\n")
        return table

    return do


def test_every_column(write: Write, tmp_path: Path) -> None:
    table = write(
        "File,LABEL,actor,split,start,end,voice file,remark",
        "a.mp4,Glad,anna,train,1.5,4,,x",
        'a.mp4," cross ",anna,Training,4,,,"a, b"',
        "b.mp4,glad,ben,dev,,,c.wav,",
        "",
        "more/a.mp4,cross,carla,test,,2.5,,",
    )
    listing = list_corpus(table)
    assert listing.labels == ("cross", "Glad")
    assert listing.warnings == ()
    by_id = {one.id: one for one in listing.recordings}
    assert sorted(by_id) == ["a@1.5-4", "a@4-", "b", "more_a@0-2.5"]
    first = by_id["a@1.5-4"]
    assert (first.path, first.emotion, first.actor) == (tmp_path / "a.mp4", 1, 1)
    assert (first.start, first.end, first.split, first.fold) == (1.5, 4.0, "train", 0)
    assert (by_id["a@4-"].emotion, by_id["a@4-"].end) == (0, math.inf)
    assert by_id["b"].audio_path == tmp_path / "c.wav"
    assert not by_id["b"].own_sound
    assert by_id["b"].split == SPLIT_NAMES["dev"] == "validation"
    assert by_id["more_a@0-2.5"].actor == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("none.mp4,sad,1,train,,,", "line 3, column file: there is no file none.mp4 in"),
        (",sad,1,train,,,", r"line 3, column file: there is no file \(empty\)"),
        ("more,sad,1,train,,,", "line 3, column file: there is no file more"),
        ("b.mp4,,1,train,,,", "line 3, column label: it is empty"),
        ("b.mp4,sad,,train,,,", "line 3, column actor: it is empty"),
        ("b.mp4,sad,1,learn,,,", "line 3, column split: learn is none of train, validation, test"),
        ("b.mp4,sad,1,train,1:20,,", "line 3, column start: '1:20' is no number of seconds"),
        ("b.mp4,sad,1,train,nan,,", "line 3, column start: 'nan' is no number of seconds"),
        ("b.mp4,sad,1,train,3,2,", "line 3, column end: 2 s isn't after the start, 3 s"),
        ("b.mp4,sad,1,train,,,no.wav", "line 3, column voice: there is no file no.wav"),
        ("a.mp4,sad,1,train,,,", "line 3, column file: a.mp4 was named in line 2 already"),
        ("b.mp4,sad,1,train,,,,,", "line 3 has 9 cells, and there are 7 columns"),
        ("b.mp4,,,learn,,,", r"line 3, column label: it is empty \(and 2 more faults\)"),
    ],
)
def test_faults_name_line_and_column(write: Write, row: str, message: str) -> None:
    header = "file,label,actor,split,start,end,voice"
    with pytest.raises(CorpusError, match=message) as caught:
        list_corpus(write(header, "a.mp4,happy,1,train,,,", row))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file;label", "a.mp4;sad"], "names its columns, file,label .*semicolons"),
        (["file\tlabel", "a.mp4\tsad"], "names its columns, file,label .*by tabs: save it with"),
        (["label", "sad"], "names its columns, file,label"),
        (["file,label,file", "a.mp4,sad,b.mp4"], "two columns file"),
        (["file,label"], "names no clip"),
        (["file,label", "a.mp4,sad", "b.mp4,Sad"], r"2 to 100 classes apart, .* has 1 \(sad\)"),
        (["file,label", 'a.mp4,"sad'], "can't be read as a CSV file"),
    ],
)
def test_tables_that_are_none(write: Write, lines: list[str], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        list_corpus(write(*lines))


def test_ids_are_told_apart(write: Write, tmp_path: Path) -> None:
    (tmp_path / "more_a.mp4").touch()
    long = "é" * 110
    (tmp_path / f"{long}.mp4").touch()
    table = write(
        "file,label", "more/a.mp4,sad", "more_a.mp4,happy", f"{long}.mp4,sad", "b.mp4,sad"
    )
    ids = [one.id for one in find_recordings(table)]
    assert len(set(ids)) == 4
    assert all(len(name.encode()) <= 200 for name in ids)
    assert ids == [one.id for one in find_recordings(table)]


class TestSplits:
    @pytest.fixture
    def many(self, tmp_path: Path) -> Callable[[int], list[str]]:
        def do(count: int) -> list[str]:
            names = [f"{i:03}.mp4" for i in range(count)]
            for name in names:
                (tmp_path / name).touch()
            return names

        return do

    def test_by_actor(self, write: Write, many: Callable[[int], list[str]]) -> None:
        rows = [f"{name},{'ab'[i % 2]},P{i % 12}" for i, name in enumerate(many(48))]
        listing = list_corpus(write("file,label,actor", *rows))
        assert listing.warnings == ()
        places = {(one.actor, one.split, one.fold) for one in listing.recordings}
        assert len(places) == 12  # each actor in one of them
        splits = [split for _, split, _ in places]
        assert [splits.count(part) for part in PARTS] == [8, 2, 2]
        assert {fold for _, _, fold in places} == set(range(1, FOLDS + 1))

    def test_at_random_with_a_warning(self, write: Write, many: Callable[[int], list[str]]) -> None:
        rows = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(many(24))]
        listing = list_corpus(write("file,label", *rows))
        (warning,) = listing.warnings
        assert "no column actor" in warning
        assert "the same person is in training and in test" in warning
        for emotion in (0, 1):
            own = [one.split for one in listing.recordings if one.emotion == emotion]
            assert [own.count(part) for part in PARTS] == [8, 2, 2]

    def test_parts_of_a_file_stay_together(
        self, write: Write, many: Callable[[int], list[str]]
    ) -> None:
        rows = [f"{name},{'ab'[part]},{part},{part + 1}" for name in many(12) for part in (0, 1)]
        listing = list_corpus(write("file,label,start,end", *rows))
        assert len({(one.path, one.split) for one in listing.recordings}) == 12

    def test_an_actor_in_two_splits(self, write: Write) -> None:
        table = write(
            "file,label,actor,split", "a.mp4,sad,1,train", "b.mp4,happy,1,test", "c.wav,sad,2,val"
        )
        (warning,) = list_corpus(table).warnings
        assert "1 of the 2 actors" in warning
        assert "in more than one split (1)" in warning


class TestClasses:
    @pytest.fixture
    def table(self, write: Write) -> Path:
        return write("file,label", "a.mp4,happy", "b.mp4,sad", "c.wav,calm", "more/a.mp4,angry")

    def count(self, table: Path, classes: object) -> tuple[tuple[str, ...], list[int]]:
        listing = list_corpus(table, classes=classes)
        found = [one.emotion for one in listing.recordings]
        return listing.labels, [found.count(i) for i in range(len(listing.labels))]

    def test_order_of_ravdess(self, table: Path) -> None:
        labels = list_corpus(table).labels
        assert labels == tuple(label for label in RAVDESS_LABELS if label in labels)

    def test_subset(self, table: Path) -> None:
        assert self.count(table, "sad,Happy") == (("sad", "Happy"), [1, 1])
        assert list_corpus(table, classes="sad,happy").passed_over["other classes"] == 2

    def test_merged(self, table: Path) -> None:
        found = self.count(table, "up=happy+calm, down = sad + angry")
        assert found == (("up", "down"), [2, 2])
        assert self.count(table, {"up": ["happy", "calm"], "down": ["sad"]})[1] == [2, 1]

    @pytest.mark.parametrize("rest", ["...", "\u2026"])
    def test_all_the_rest(self, table: Path, rest: str) -> None:
        assert self.count(table, f"sad,other={rest}") == (("sad", "other"), [1, 3])

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ("happy,joy", "no label 'joy': it has calm, happy, sad, angry"),
            ("happy", "2 to 100 classes apart, and the corpus has 1"),
            ("happy,,sad", "an empty one is none: write NAME"),
            ("happy,x=", "x= is none: write NAME"),
            ("happy,happy", "happy stands there twice"),
            ("happy,x=happy+sad", "the label happy is taken twice"),
            ("happy,sad,calm,angry,x=...", "the class x takes no label"),
            ("x=...,y=...", "two classes take all the rest: y is the second"),
        ],
    )
    def test_none_such(self, table: Path, classes: str, message: str) -> None:
        with pytest.raises(CorpusError, match=message):
            list_corpus(table, classes=classes)
