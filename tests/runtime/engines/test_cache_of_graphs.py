"""Graphs prepared for this processor: kept, found again, and never trusted blindly."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_runtime.bundle import Bundle, load_bundle
from mer_runtime.engines import cache as graph_cache
from mer_runtime.engines import open_backend
from mer_runtime.engines.cache import (
    GRAPHS_FOLDER,
    KEPT,
    describe_cpu,
    find_prepared,
    write_engine,
)
from mer_runtime.errors import BundleError
from mer_runtime.store import CACHE_VARIABLE

WriteBundle = Callable[..., Path]
ENGINE = "engine 1.0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / GRAPHS_FOLDER


@pytest.fixture
def tiny(write_tiny_bundle: WriteBundle) -> Bundle:
    return load_bundle(write_tiny_bundle())


@pytest.fixture(params=["onnx", "openvino"])
def target(request: pytest.FixtureRequest) -> str:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return str(request.param)


def test_kept_and_read(tiny: Bundle, folder: Path) -> None:
    place = find_prepared(tiny, tiny.encoder, ENGINE)
    assert place.read() is None
    place.keep(b"prepared")
    assert find_prepared(tiny, tiny.encoder, ENGINE).read() == b"prepared"
    assert [path.parent for path in folder.iterdir()] == [folder]
    place.drop()
    assert place.read() is None
    place.drop()  # gone already


def test_anything_else_is_another(
    tiny: Bundle,
    write_tiny_bundle: WriteBundle,
    make_tiny_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find_prepared(tiny, tiny.encoder, ENGINE).keep(b"prepared")
    changed = make_tiny_model(width=7).encoder_graph()
    other = load_bundle(write_tiny_bundle("other", encoder=changed))
    assert find_prepared(other, other.encoder, ENGINE).read() is None
    assert find_prepared(tiny, tiny.head, ENGINE).read() is None
    assert find_prepared(tiny, tiny.encoder, "engine 1.1").read() is None
    assert find_prepared(tiny, tiny.encoder, ENGINE, {"faces": [[5]]}).read() is None
    monkeypatch.setattr(graph_cache, "describe_cpu", lambda: "another")
    assert find_prepared(tiny, tiny.encoder, ENGINE).read() is None


def test_same_graph_elsewhere_is_the_same(tiny: Bundle, write_tiny_bundle: WriteBundle) -> None:
    find_prepared(tiny, tiny.encoder, ENGINE).keep(b"prepared")
    copy = load_bundle(write_tiny_bundle("copy"))
    assert find_prepared(copy, copy.encoder, ENGINE).read() == b"prepared"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damage_is_noticed(damage: str, tiny: Bundle) -> None:
    place = find_prepared(tiny, tiny.encoder, ENGINE)
    place.keep(b"prepared" * 100)
    data = bytearray(place.path.read_bytes())
    data[-3] ^= 1
    damaged = {"cut": bytes(data[:-50]), "flipped": bytes(data), "empty": b""}
    place.path.write_bytes(damaged[damage])
    assert place.read() is None


def test_nowhere_to_keep_it(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    place = find_prepared(tiny, tiny.encoder, ENGINE)
    place.keep(b"prepared")
    assert place.read() is None


def test_oldest_go(tiny: Bundle, folder: Path) -> None:
    places = [find_prepared(tiny, tiny.encoder, f"engine {i}") for i in range(KEPT + 3)]
    for age, place in enumerate(places):
        place.keep(b"prepared")
        os.utime(place.path, (age, age))
    # The last one was new when the others were counted.
    assert [place.read() is None for place in places] == [True] * 3 + [False] * KEPT
    assert len(list(folder.iterdir())) == KEPT


def test_cpu_is_described() -> None:
    assert describe_cpu() == describe_cpu()
    assert len(describe_cpu().splitlines()) == 1


def test_hidden_instructions_make_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator shows the host's description: what was prepared there must not be taken here."""
    before = describe_cpu()
    monkeypatch.setattr(graph_cache, "read_instructions", lambda: ("another",))
    assert describe_cpu() != before


def answer(bundle: Bundle, tiny_model: Any) -> tuple[Any, Any]:
    """Features and logits of a random window, checked against the graphs' formulas."""
    backend = open_backend(bundle, threads=1)
    generator = np.random.default_rng(5)
    faces = generator.integers(0, 256, tiny_model.spec.video.shape, np.uint8)
    mfcc = generator.normal(0, 60, tiny_model.spec.audio.shape).astype(np.float32)
    features = backend.encode(faces)
    # float32 sums of a thousand pixels.
    np.testing.assert_allclose(features, tiny_model.encode(faces), atol=1e-4)
    return features, backend.classify(mfcc, features)


def test_second_start_uses_what_was_kept(
    target: str, write_tiny_bundle: WriteBundle, tiny_model: Any, folder: Path
) -> None:
    bundle = load_bundle(write_tiny_bundle(target=target))
    first = answer(bundle, tiny_model)
    kept = sorted(folder.iterdir())
    assert len(kept) == 2
    # The graphs themselves are gone: only what was kept can answer.
    for graph in (bundle.encoder, bundle.head):
        graph.unlink()
    second = answer(bundle, tiny_model)
    np.testing.assert_array_equal(second[0], first[0])
    np.testing.assert_array_equal(second[1], first[1])
    assert sorted(folder.iterdir()) == kept


def test_what_the_engine_refuses_is_made_again(
    target: str, write_tiny_bundle: WriteBundle, tiny_model: Any, folder: Path
) -> None:
    """In order by its hash, and yet no graph: left by a version with a fault, say."""
    bundle = load_bundle(write_tiny_bundle(target=target))
    answer(bundle, tiny_model)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for path, content in kept.items():
        graph = bundle.encoder if path.name.startswith("encoder") else bundle.head
        key = json.loads(json.loads(content.split(b"\n")[1])["key"])
        place = find_prepared(bundle, graph, key["builder"], key["profile"])
        assert place.path == path
        write_engine(path, place.key, b"no graph")
    answer(bundle, tiny_model)
    for path in kept:
        assert len(path.read_bytes()) > 300


def test_spec_is_still_compared(write_tiny_bundle: WriteBundle, tiny_model: Any) -> None:
    """A kept graph says nothing about another bundle's manifest."""
    open_backend(load_bundle(write_tiny_bundle()), threads=1)
    labels = ("one", "two")
    spec = dataclasses.replace(tiny_model.spec, labels=labels)
    other = load_bundle(write_tiny_bundle("other", spec=spec.to_dict()))
    with pytest.raises(BundleError, match=r"logits \(1 x 8\), .*logits \(1 x 2\)"):
        open_backend(other, threads=1)


SCRIPT = """
import sys
import numpy as np
from mer_runtime.engines import open_backend
from mer_runtime.bundle import load_bundle
backend = open_backend(load_bundle(sys.argv[1]), threads=1)
print(backend.encode(np.full((1, 32, 32, 3), 100, np.uint8)).tolist())
"""


@pytest.mark.slow
def test_processes_that_start_at_once(write_tiny_bundle: WriteBundle, folder: Path) -> None:
    path = write_tiny_bundle()
    command = [sys.executable, "-c", SCRIPT, str(path)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {process.communicate(timeout=60)[0] for process in started}
    assert len(answers) == 1
    assert all(process.returncode == 0 for process in started)
    assert sorted(file.suffix for file in folder.iterdir()) == [".engine"] * 2  # nothing half-done
