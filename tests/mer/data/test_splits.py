import zipfile
from pathlib import Path

import pytest

from mer.data.splits import FOLDS, load_splits, split_actors
from mer.errors import CorpusError

RAVDESS = range(1, 25)
STAND_IN = range(1, 23)


def test_the_default_split_is_the_published_checkpoints() -> None:
    assert split_actors(RAVDESS, "test") == {5, 10, 16, 19}
    assert split_actors(RAVDESS, "validation") == {11, 13, 18, 22}
    assert split_actors(RAVDESS, "train") == {
        *(1, 2, 3, 4, 6, 7, 8, 9, 12, 14, 15, 17, 20, 21, 23, 24),
    }


def test_the_folds_are_the_published_ones() -> None:
    assert [split_actors(RAVDESS, "test", fold) for fold in range(1, FOLDS + 1)] == [
        {2, 5, 14, 15, 16},
        {3, 6, 7, 13, 18},
        {10, 11, 12, 19, 20},
        {8, 17, 21, 23, 24},
        {1, 4, 9, 22},
    ]


@pytest.mark.parametrize("fold", range(1, FOLDS + 1))
def test_a_fold_validates_on_the_next(fold: int) -> None:
    following = fold % FOLDS + 1

    assert split_actors(RAVDESS, "validation", fold) == split_actors(RAVDESS, "test", following)


@pytest.mark.parametrize("fold", [None, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("actors", [RAVDESS, STAND_IN])
def test_no_actor_is_in_two_splits(actors: range, fold: int | None) -> None:
    parts = [split_actors(actors, name, fold) for name in ("train", "validation", "test")]

    assert sum(map(len, parts)) == len(actors)
    assert frozenset().union(*parts) == split_actors(actors, "all", fold) == set(actors)


def test_a_corpus_that_lacks_actors_keeps_those_it_has() -> None:
    assert split_actors([1, 5, 19, 11, 1], "test") == {5, 19}
    assert split_actors(STAND_IN, "test", 4) == {8, 17, 21}


def test_the_list_has_a_stable_digest() -> None:
    # Changing who tests makes old figures incomparable: this must then change, knowingly.
    assert (
        load_splits().sha256 == "ca781298da88c275af4f7fde631db854672c6478f4728a5ee56fac2787f2e75c"
    )


@pytest.mark.parametrize(
    ("actors", "split", "fold", "message"),
    [
        (
            [1, 2],
            "test",
            None,
            r"no actor .* in test of the default split: the corpus has \[1, 2\]",
        ),
        ([1, 2], "validation", 3, "no actor .* in validation of fold 3"),
        ([5, 11], "train", None, "no actor .* in train"),
        ([], "all", None, "no actor .* in all"),
        ([1], "dev", None, "no split 'dev': they are train, validation, test, all"),
        ([1], "test", 0, "no fold 0: they are 1 to 5"),
        ([1], "test", 6, "no fold 6: they are 1 to 5"),
    ],
)
def test_an_empty_split_is_an_error(
    actors: list[int], split: str, fold: int | None, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        split_actors(actors, split, fold)


def test_the_list_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert "mer/splits.json" in archive.namelist()
