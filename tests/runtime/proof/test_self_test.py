"""The golden inputs' replay, and that a bundle which passed is taken at its word from then on."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime import BundleError, Recognizer
from mer_runtime.bundle import Bundle, load_bundle
from mer_runtime.engines import Backend, open_backend
from mer_runtime.engines.cache import GRAPHS_FOLDER, KEPT
from mer_runtime.engines.processor import name_cpu
from mer_runtime.proof import self_test
from mer_runtime.proof.self_test import (
    PROVE_VARIABLE,
    compare,
    encode_crops,
    prove_answers,
    replay,
    run_self_test,
)
from mer_runtime.store import CACHE_VARIABLE

pytestmark = pytest.mark.usefixtures("folder")

WriteBundle = Callable[..., Path]
EditGolden = Callable[..., None]


class Counting:
    """A backend that counts what it encodes, under a name of its own where one is given."""

    def __init__(self, inner: Backend, **pretended: str) -> None:
        self._inner = inner
        self.encoded: list[int] = []
        for name, value in pretended.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.encoded.append(len(faces))
        return self._inner.encode(faces)


@pytest.fixture
def backend(tiny: Bundle) -> Counting:
    return Counting(open_backend(tiny, 1))


@pytest.fixture
def wrong(write_tiny_bundle: WriteBundle, tiny_model: Any) -> Path:
    """A head of other weights than that which gave the golden answers."""
    other = dataclasses.replace(tiny_model, faces=tiny_model.faces * np.float32(1.1))
    return write_tiny_bundle("wrong", head=other.head_graph())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    """The backends that are opened from now on."""
    found: list[Counting] = []

    def open_counting(bundle: Bundle, threads: int) -> Any:
        found.append(Counting(open_backend(bundle, threads)))
        return found[-1]

    monkeypatch.setattr("mer_runtime.proof.choice.open_backend", open_counting)
    return found


@pytest.mark.parametrize("count", [1, 5, 12, 30])
def test_replay_encodes_each_crop_once_a_window_at_a_time(
    count: int, tiny: Bundle, backend: Counting, tiny_model: Any
) -> None:
    generator = np.random.default_rng(count)
    frames, *crop = tiny.spec.video.shape
    crops = generator.integers(0, 256, (count, *crop), np.uint8)
    mfcc = generator.normal(0, 60, (4, *tiny.spec.audio.shape)).astype(np.float32)
    mfcc[1] = 0
    sequence = generator.integers(0, count, (4, frames))
    sequence[2:] = -1
    names = ("a", "b", "c", "d")
    golden = dataclasses.replace(
        tiny.golden(), cases=names, mfcc=mfcc, crops=crops, sequence=sequence
    )
    no_face = generator.normal(0, 1, 6).astype(np.float32)

    logits = replay(backend, tiny.spec, no_face, golden)
    assert backend.encoded == [frames] * -(-count // frames)
    assert logits.dtype == np.float32
    features = encode_crops(backend, tiny.spec, golden)
    assert features.shape == (count, 6)
    np.testing.assert_allclose(features, tiny_model.encode(crops), atol=1e-4)
    rows = np.concatenate([features, no_face[None]])
    expected = [tiny_model.classify(mfcc[i], rows[sequence[i]]) for i in range(4)]
    np.testing.assert_allclose(logits, expected, atol=1e-3)

    # Features that are there already are taken as they are.
    backend.encoded.clear()
    given = replay(backend, tiny.spec, no_face, golden, features)
    assert backend.encoded == []
    np.testing.assert_array_equal(given, logits)
    others = replay(backend, tiny.spec, no_face, golden, features + 1)
    assert (np.abs(others - logits).max(axis=1) > 0.1).tolist() == [True, True, False, False]


def test_replay_answers_as_the_recognizer(bundle: Path) -> None:
    """On the real network, window by window."""
    recognizer = Recognizer.load(bundle, threads=1)
    golden = recognizer.bundle.golden()
    no_face = recognizer.bundle.no_face()
    logits = replay(recognizer.backend, recognizer.spec, no_face, golden)
    expected = [recognizer.infer(*golden.case(i)) for i in range(len(golden.cases))]
    np.testing.assert_allclose(logits, expected, atol=1e-4)  # other batches, other sums
    assert len(golden.cases) == len(np.unique(logits.round(3), axis=0))
    assert recognizer.self_test() == compare(golden, logits)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_infinitely_off(bad: float, tiny: Bundle) -> None:
    golden = dataclasses.replace(tiny.golden(), tolerance=1e30)
    assert compare(golden, golden.answers).passed
    logits = golden.answers.copy()
    logits[1, 3] = bad
    result = compare(golden, logits)
    assert result.max_difference == np.inf
    assert not result.passed


def test_one_logit_decides(tiny: Bundle) -> None:
    golden = tiny.golden()
    logits = golden.answers.copy()
    logits[0, 5] -= 0.25
    result = compare(golden, logits)
    assert result.max_difference == pytest.approx(0.25, abs=1e-5)
    assert (result.cases, result.tolerance, result.passed) == (2, 1e-3, False)


def test_second_start_takes_its_word(
    write_tiny_bundle: WriteBundle, opened: list[Counting], folder: Path
) -> None:
    path = write_tiny_bundle()
    for _ in range(3):
        Recognizer.load(path)
    assert [one.encoded for one in opened] == [[12], [], []]
    (kept,) = folder.iterdir()
    assert kept.stat().st_size < 1000
    # Asked for by name it runs all the same.
    assert Recognizer.load(path).self_test().passed
    assert opened[-1].encoded == [12]


def test_anything_else_is_proved_anew(
    tiny: Bundle,
    backend: Counting,
    write_tiny_bundle: WriteBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def proves(bundle: Bundle = tiny, backend: Counting = backend) -> bool:
        backend.encoded.clear()
        prove_answers(bundle, backend)  # type: ignore[arg-type]
        return backend.encoded == [12]

    assert proves()
    assert not proves()
    other = load_bundle(write_tiny_bundle("other", temperatures=3.0))
    assert proves(other)
    newer = Counting(open_backend(tiny, 1), name="onnxruntime 99.0.0")
    assert proves(backend=newer)
    gpu = Counting(open_backend(tiny, 1), gpu="Orin sm87")
    assert proves(backend=gpu)
    assert proves(backend=Counting(open_backend(tiny, 1), gpu="Thor sm110"))
    with monkeypatch.context() as patch:
        patch.setattr(self_test, "describe_cpu", lambda: "another")
        assert proves()
        assert proves(backend=gpu)
    # Each has its own place: none took another's.
    assert not any((proves(other), proves(backend=newer), proves(backend=gpu), proves()))


def test_copy_elsewhere_is_the_same(
    tiny: Bundle, write_tiny_bundle: WriteBundle, opened: list[Counting]
) -> None:
    Recognizer.load(tiny.path)
    Recognizer.load(write_tiny_bundle("copy"))
    assert [one.encoded for one in opened] == [[12], []]


def test_damaged_pass_is_none(
    write_tiny_bundle: WriteBundle, opened: list[Counting], folder: Path
) -> None:
    path = write_tiny_bundle()
    Recognizer.load(path)
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    Recognizer.load(path)
    assert [one.encoded for one in opened] == [[12], [12]]


def test_few_are_kept(tiny: Bundle, folder: Path) -> None:
    inner = open_backend(tiny, 1)
    for i in range(KEPT + 3):
        prove_answers(tiny, Counting(inner, name=f"engine {i}"))  # type: ignore[arg-type]
    assert len(list(folder.iterdir())) == KEPT
    assert len(list((folder.parent / GRAPHS_FOLDER).iterdir())) == 2


def test_wrong_answers_are_refused_each_time(
    wrong: Path, opened: list[Counting], folder: Path
) -> None:
    for _ in range(2):
        with pytest.raises(BundleError) as refused:
            Recognizer.load(wrong)
        (line,) = str(refused.value).splitlines()
        for word in (str(wrong), opened[-1].name, name_cpu(), "--backend", "export the bundle"):
            assert word in line
        assert "saturate" not in line
    assert [one.encoded for one in opened] == [[12], [12]]
    assert not folder.exists()


def test_int8_tells_of_saturation(
    write_tiny_bundle: WriteBundle, edit_golden: EditGolden, tiny: Bundle
) -> None:
    path = write_tiny_bundle("int8", precision="int8")
    edit_golden(path, answers=tiny.golden().answers + 1)
    bundle = load_bundle(path)
    with pytest.raises(BundleError, match="int8 kernels of some processors saturate"):
        prove_answers(bundle, open_backend(bundle, 1))
    gpu = Counting(open_backend(bundle, 1), gpu="Orin sm87")
    with pytest.raises(BundleError, match=r"on Orin sm87 is off .* by 1, more than 0\.001: name"):
        prove_answers(bundle, gpu)  # type: ignore[arg-type]


def test_switched_off(
    wrong: Path, opened: list[Counting], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Recognizer.load(wrong, prove=False).self_test().passed
    monkeypatch.setenv(PROVE_VARIABLE, "0")
    Recognizer.load(wrong)
    assert [one.encoded for one in opened] == [[12], []]
    assert not folder.exists()
    for value in ("1", ""):
        monkeypatch.setenv(PROVE_VARIABLE, value)
        with pytest.raises(BundleError, match="off its golden answers"):
            Recognizer.load(wrong)


@pytest.mark.parametrize("place", ["/dev/null/cache", "~nobody-by-this-name/cache"])
def test_nowhere_to_keep_it(
    place: str,
    write_tiny_bundle: WriteBundle,
    opened: list[Counting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It costs the time again, and nothing else."""
    monkeypatch.setenv(CACHE_VARIABLE, place)
    path = write_tiny_bundle()
    files = sorted(path.iterdir())
    for _ in range(2):
        assert Recognizer.load(path).self_test().passed
    assert [one.encoded for one in opened] == [[12, 12], [12, 12]]
    assert sorted(path.iterdir()) == files
    assert not list(Path.cwd().glob("~*"))


SIGNALS = ("signal_mfcc", "signal_crop")


@pytest.mark.parametrize(
    "name", ["mfcc", "crops", "sequence", "answers", "no case", "no crop", "order", *SIGNALS]
)
def test_golden_of_another_spec(
    name: str, tiny: Bundle, edit_golden: EditGolden, backend: Counting
) -> None:
    with np.load(tiny.path / "golden.npz") as data:
        arrays = dict(data)
    if name == "order":  # a crop that isn't there
        edit_golden(tiny.path, sequence=arrays["sequence"] + 1)
    elif name == "no case":
        of_cases = ("cases", "mfcc", "sequence", "reference", "answers")
        edit_golden(tiny.path, **{key: arrays[key][:0] for key in of_cases})
    elif name == "no crop":
        missing = np.full_like(arrays["sequence"], -1)
        edit_golden(tiny.path, crops=arrays["crops"][:0], sequence=missing)
    else:
        edit_golden(tiny.path, **{name: arrays[name][:, 1:]})
    with pytest.raises(BundleError, match=r"its golden\.npz isn't of its spec"):
        run_self_test(load_bundle(tiny.path), backend)  # type: ignore[arg-type]
    assert backend.encoded == []


SCRIPT = """
import sys
from mer_runtime import Recognizer
print(Recognizer.load(sys.argv[1], threads=1).self_test().max_difference)
"""


@pytest.mark.slow
def test_processes_that_prove_at_once(write_tiny_bundle: WriteBundle, folder: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(write_tiny_bundle())]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(4)
    ]
    answers = {process.communicate(timeout=60)[0] for process in started}
    assert len(answers) == 1
    assert all(process.returncode == 0 for process in started)
    assert [file.suffix for file in folder.iterdir()] == [".engine"]
