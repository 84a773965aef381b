"""Golden inputs and answers as a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_runtime import Recognizer
from mer_runtime.bundle import load_bundle
from mer_runtime.errors import BundleError
from mer_runtime.feeds import Temperatures
from mer_runtime.golden import GOLDEN_FILE, Golden, read_golden, write_golden

FIELDS = [field.name for field in dataclasses.fields(Golden)]


@pytest.fixture
def golden(write_tiny_bundle: Callable[..., Path]) -> Golden:
    return load_bundle(write_tiny_bundle(temperatures=0.1 + 0.2)).golden()


def test_what_is_written_is_read(golden: Golden, tmp_path: Path) -> None:
    golden = dataclasses.replace(golden, cases=("ä", "b, c"), tolerance=1 / 3)
    write_golden(tmp_path, golden)
    read = read_golden((tmp_path / GOLDEN_FILE).read_bytes())
    assert read.cases == ("ä", "b, c")
    assert read.tolerance == 1 / 3
    assert read.temperatures == Temperatures(*[0.1 + 0.2] * 3)
    for name in FIELDS:
        kept, given = getattr(read, name), getattr(golden, name)
        np.testing.assert_array_equal(kept, given)
        if isinstance(given, np.ndarray):
            assert kept.dtype == given.dtype, name


def test_cases_without_a_modality(golden: Golden) -> None:
    (no_voice, faces), (mfcc, no_face) = golden.case(0), golden.case(1)
    assert no_voice is None
    assert no_face is None
    assert faces is not None
    np.testing.assert_array_equal(faces, golden.crops[golden.sequence[0]])
    assert mfcc is not None
    np.testing.assert_array_equal(mfcc, golden.mfcc[1])
    both = dataclasses.replace(golden, sequence=golden.sequence[[0, 0]]).case(1)
    assert both[0] is not None
    assert both[1] is not None


@pytest.mark.parametrize("name", FIELDS)
def test_file_that_lacks_something(
    name: str, write_tiny_bundle: Callable[..., Path], resign: Callable[..., None]
) -> None:
    folder = write_tiny_bundle()
    with np.load(folder / GOLDEN_FILE) as data:
        left = {key: array for key, array in data.items() if key != name}
    np.savez_compressed(folder / GOLDEN_FILE, **left)
    resign(folder)
    with pytest.raises(BundleError, match=f"its golden answers can't be read: .*{name}"):
        load_bundle(folder).golden()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cases", np.zeros(2)),
        ("cases", np.array("one")),
        ("crops", np.zeros((2, 32, 32, 3))),
        ("sequence", np.zeros((2, 12))),
        ("tolerance", np.array([1.0, 2.0])),
        ("temperatures", np.array(["hot"] * 3)),
        ("temperatures", np.ones(2)),
    ],
)
def test_array_of_another_kind(name: str, value: Any, golden: Golden, tmp_path: Path) -> None:
    write_golden(tmp_path, golden)
    with np.load(tmp_path / GOLDEN_FILE) as data:
        arrays = dict(data) | {name: value}
    np.savez_compressed(tmp_path / GOLDEN_FILE, **arrays)
    with pytest.raises(ValueError, match=name):
        read_golden((tmp_path / GOLDEN_FILE).read_bytes())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sequence", lambda a: a - 5),
        ("sequence", lambda a: a + 5),
        ("features", lambda a: a[:1]),
        ("reference", lambda a: a[:, :2]),
        ("mfcc", lambda a: a * np.float32("nan")),
        ("answers", lambda a: a[:0]),
    ],
)
def test_array_of_another_shape(
    name: str,
    value: Callable[[Any], Any],
    write_tiny_bundle: Callable[..., Path],
    resign: Callable[..., None],
) -> None:
    folder = write_tiny_bundle()
    golden = load_bundle(folder).golden()
    write_golden(folder, dataclasses.replace(golden, **{name: value(getattr(golden, name))}))
    resign(folder)
    with pytest.raises(BundleError, match=r"its golden\.npz isn't of its spec"):
        Recognizer.load(folder, threads=1)
