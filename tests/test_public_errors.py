"""What a program calls takes paths as text, and refuses each wrong one with an error of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mer
import mer_bench
import mer_export
import mer_runtime
from mer_calibration import Ranges
from mer_export.inspection.bundles import inspect_bundle
from mer_export.tuning.search import tune
from mer_runtime import MerError, Recognizer

BUNDLE = "ia-compact-int8"


@dataclass(frozen=True)
class Right:
    """Paths that serve, as text: a cache, a clip, its folder and table, a checkpoint, an output."""

    cache: str
    clip: str
    clips: str
    table: str
    checkpoint: str
    out: str
    recognizer: Recognizer


def bench(*bundles: str, **options: Any) -> None:
    mer_bench.run_bench(bundles, seconds=0.01, **options)


def listen(recognizer: Recognizer, source: str) -> None:
    given = mer_runtime.Input(mer_runtime.parse_source(source))
    list(mer_runtime.LiveSession(recognizer, [given], pace="fast").run())


#: What is called with a wrong path in each place that takes one.
CALLS: dict[str, Callable[[str, Right], Any]] = {
    "prepare_cache": lambda x, at: mer.prepare_cache(x, at.out),
    "prepare_cache, face_detector": lambda x, at: mer.prepare_cache(
        at.table, at.out, face_detector=x
    ),
    "pretrain_encoder": lambda x, at: mer.pretrain_encoder(x, at.out),
    "train_model": lambda x, at: mer.train_model(x, at.out),
    "train_model, encoder": lambda x, at: mer.train_model(at.cache, at.out, encoder=x),
    "train_model, start": lambda x, at: mer.train_model(at.cache, at.out, start=x),
    "train_model, teacher": lambda x, at: mer.train_model(at.cache, at.out, teacher=x),
    "train_series": lambda x, at: mer.train_series(x, at.out, seeds=[1, 2]),
    "evaluate_model": lambda x, at: mer.evaluate_model(x, at.cache),
    "evaluate_model, cache": lambda x, at: mer.evaluate_model(BUNDLE, x),
    "evaluate_folder": lambda x, at: mer.evaluate_folder(x, at.clips, at.table),
    "evaluate_folder, folder": lambda x, at: mer.evaluate_folder(BUNDLE, x, at.table),
    "evaluate_folder, table": lambda x, at: mer.evaluate_folder(BUNDLE, at.clips, x),
    "evaluate_folder, face_detector": lambda x, at: mer.evaluate_folder(
        BUNDLE, at.clips, at.table, face_detector=x
    ),
    "load_checkpoint": lambda x, at: mer.load_checkpoint(x),
    "add_model": lambda x, at: mer.add_model(f"{x}:Fusion"),
    "load_bundle": lambda x, at: mer_runtime.load_bundle(x),
    "Recognizer.load": lambda x, at: Recognizer.load(x),
    "Recognizer.load, detector": lambda x, at: Recognizer.load(BUNDLE, detector=x),
    "predict": lambda x, at: at.recognizer.predict(x),
    "timeline": lambda x, at: list(at.recognizer.timeline(x)),
    "LiveSession": lambda x, at: listen(at.recognizer, x),
    "export_bundle": lambda x, at: mer_export.export_bundle(x, at.out, precision="fp32"),
    "export_bundle, calibration": lambda x, at: mer_export.export_bundle(
        at.checkpoint, at.out, calibration=x
    ),
    "export_bundle, ranges": lambda x, at: mer_export.export_bundle(
        at.checkpoint, at.out, ranges=x
    ),
    "export_bundle, face_detector": lambda x, at: mer_export.export_bundle(
        at.checkpoint, at.out, precision="fp32", face_detector=x
    ),
    "tune": lambda x, at: tune([x], at.cache, at.out, max_drop=1.0),
    "tune, calibration": lambda x, at: tune([at.checkpoint], x, at.out, max_drop=1.0),
    "inspect_bundle": lambda x, at: inspect_bundle(x),
    "Ranges.read": lambda x, at: Ranges.read(x),
    "run_bench": lambda x, at: bench(x),
    "run_bench, clip": lambda x, at: bench(BUNDLE, clip=x),
    "run_bench, cache": lambda x, at: bench(BUNDLE, clip=at.clip, cache=x),
    "run_bench, reference": lambda x, at: bench(BUNDLE, clip=at.clip, reference=x),
    "read_result": lambda x, at: mer_bench.read_result(x),
}
#: What is called with a folder that is none to write into.
WRITES: dict[str, Callable[[str, Right], Any]] = {
    "prepare_cache": lambda x, at: mer.prepare_cache(at.table, x),
    "save_checkpoint": lambda x, at: mer.save_checkpoint(
        x, (known := mer.load_checkpoint(at.checkpoint)).model, known.spec
    ),
    "timeline, overlay": lambda x, at: list(at.recognizer.timeline(at.clip, overlay=f"{x}.mp4")),
    "write_timeline": lambda x, at: mer_runtime.write_timeline(
        f"{x}.csv", at.recognizer.timeline(at.clip)
    ),
    "write_overlay": lambda x, at: mer_runtime.write_overlay(
        f"{x}.png", at.recognizer.analyse(at.clip), at.recognizer.spec
    ),
    "Ranges.write": lambda x, at: Ranges.read(
        at.checkpoint.replace(".safetensors", ".ranges.json")
    ).write(x),
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By what is wrong with them."""
    root = tmp_path_factory.mktemp("wrong")
    (root / "empty").write_bytes(b"")
    (root / "text").write_text("Dear reader\n")
    (root / "folder").mkdir()
    (root / "folder" / "text").write_text("Dear reader\n")
    paths = {name: str(root / name) for name in ("missing", "empty", "text", "folder")}
    return paths | {"beyond a file": f"{root}/text/x", "no name": "a\0b", "long": 5000 * "x"}


@pytest.fixture(scope="module")
def right(
    tmp_path_factory: pytest.TempPathFactory, small_clip: Path, write_cache: Callable[..., Path]
) -> Right:
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("right")
    (root / "clips").mkdir()
    clip = Path(shutil.copy(small_clip, root / "clips"))
    table = clip.with_name("labels.csv")
    table.write_text(f"file,label\n{clip.name},happy\n")
    return Right(
        str(write_cache(root / "cache")),
        str(clip),
        str(clip.parent),
        str(table),
        str(mer.shipped_checkpoint("ia-compact")),
        str(root / "out"),
        Recognizer.load(BUNDLE),
    )


@pytest.mark.parametrize("name", CALLS)
def test_wrong_path(name: str, wrong: dict[str, str], right: Right) -> None:
    for path in wrong.values():
        with pytest.raises(MerError) as caught:
            CALLS[name](path, right)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WRITES)
def test_place_that_cannot_be_written(name: str, wrong: dict[str, str], right: Right) -> None:
    for path in (wrong["beyond a file"], wrong["no name"], wrong["long"]):
        with pytest.raises(MerError):
            WRITES[name](path, right)
    assert sorted(path.name for path in Path(wrong["text"]).parent.iterdir()) == [
        "empty",
        "folder",
        "text",
    ]
