"""Files from others' hands: specs, results, ranges, zips, caches, checkpoints, names."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzz_bundles import SHIPPED
from fuzzing import Subject, edited, mutants, names
from mer_runtime.bundle import load_bundle
from mer_runtime.errors import MerError
from mer_runtime.files import write_file
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.spec import Spec

Prepared = tuple[SearchStrategy[Any], Callable[[Any], object]]

#: A sound without a sample.
WAV = bytes.fromhex(
    "52494646240000005741564566 6d74201000000001000100803e0000007d000002001000 6461746100000000"
)


def specs(folder: Path) -> Prepared:
    def take(case: Any) -> None:
        spec = Spec.from_dict(case)
        compute_mfcc(np.zeros(spec.audio.samples, np.float32), spec.audio)

    document = Spec().to_dict()
    document["audio"] |= {"mean": [0.0] * 10, "std": [1.0] * 10}
    numbers = st.integers() | st.floats() | st.sampled_from((16, 64, 400, 512, 16_000, 60.0))
    numeric = st.fixed_dictionaries(
        {"audio": st.dictionaries(st.sampled_from(list(document["audio"])), numbers, max_size=4)}
    )
    return edited(document) | numeric, take


def results(folder: Path) -> Prepared:
    from mer_bench import compare_runs, list_caveats, read_result

    times = {"total": [[10.0, 11.0], [12.0]], "window": [[5.0], [6.0]]}
    summary = {name: {"p50": 10.0} for name in times}
    run = {
        "format": 1,
        "machine": {
            **{"cpu": "a", "flags": ["avx2"], "cores": 2, "governor": "b", "power_mode": None},
            **{"versions": {"numpy": "2.0"}, "before": {"load": [0.1, 0.2, 0.3]}},
        },
        "settings": {"clip": "a.mp4", "threads": 1, "detector": "haar"},
        "contenders": [
            {"name": name, "single_stream": {"times": times, "summary": summary}} for name in "ab"
        ],
    }
    file = folder / "run.json"
    write_file(file, json.dumps(run))
    before = read_result(file)

    def take(case: Any) -> None:
        file.write_text(json.dumps(case))
        after = read_result(file)
        compare_runs(before, after)
        list(list_caveats(before, after))

    return edited(run), take


def ranges(folder: Path) -> Prepared:
    from mer_calibration import Ranges

    whole = (load_bundle(SHIPPED).path / "ranges.json").read_bytes()
    file = folder / "ranges.json"
    document = json.loads(whole)
    document["roundings"] = {name: {} for name in document["roundings"]}  # most of its size

    def take(case: Any) -> None:
        file.write_bytes(case if isinstance(case, bytes) else json.dumps(case).encode())
        Ranges.read(file)

    return edited(document) | mutants(json.dumps(document).encode()), take


def zips(folder: Path) -> Prepared:
    from mer.data.photos import load_photos

    file = folder / "photos.zip"
    pictures = [
        cv2.imencode(s, np.full((48, 48), 90, np.uint8))[1].tobytes() for s in (".png", ".jpg")
    ]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for label in ("sad", "happy"):
            for i, picture in enumerate(pictures):
                archive.writestr(f"train/{label}/{i}.jpg", picture)
    whole = file.read_bytes()

    def take(case: bytes | tuple[str, bytes]) -> None:
        if isinstance(case, bytes):
            file.write_bytes(case)
        else:
            with zipfile.ZipFile(file, "w") as made:
                made.writestr(case[0].encode(errors="replace").decode(), case[1])
        load_photos(file, "train", 48)

    member = names.map(lambda name: f"train/{name}/a.jpg") | names
    return mutants(whole) | st.tuples(member, st.sampled_from(pictures).flatmap(mutants)), take


def caches(folder: Path) -> Prepared:
    from mer.data.cache import Cache
    from mer.data.index import CacheRow, clip_dtype, clip_path, write_index
    from mer_runtime.spec import VideoSpec

    spec, path = Spec(video=VideoSpec(frames=3, size=32)), folder / "cache"
    (path / "clips").mkdir(parents=True)
    row = CacheRow("01-01-03-01-01-01-05", 2, 5, 1, True, True, 3)
    np.save(clip_path(path, row.id), np.ones(1, clip_dtype(spec)))
    write_index(path, spec, {"name": "haar", "file": "a", "sha256": "b"}, [row], [])
    index, clip = (path / "cache.json").read_bytes(), clip_path(path, row.id).read_bytes()

    def take(case: Any) -> None:
        kind, content = case
        (path / "cache.json").write_bytes(index)
        clip_path(path, row.id).write_bytes(clip)
        if kind == "clip":
            clip_path(path, row.id).write_bytes(content)
        else:
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            (path / "cache.json").write_bytes(text)
        cache = Cache.open(path)
        for i in range(len(cache)):
            cache.crops(i).sum()
            cache.mfcc(i, cache.spec.audio)
        cache.require(spec)

    begin = mutants(clip[:1200]).map(lambda head: head + clip[1200:])
    changed = edited(json.loads(index)) | mutants(index)
    return st.tuples(st.just("clip"), begin) | st.tuples(st.just("index"), changed), take


def checkpoints(folder: Path) -> Prepared:
    import torch

    from mer import load_checkpoint
    from mer.weights import shipped_checkpoint

    whole = shipped_checkpoint().read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    torch.save({"state_dict": {"a": torch.zeros(3)}, "epoch": 1}, folder / "small.pth")
    pickled = (folder / "small.pth").read_bytes()

    def take(case: Any) -> None:
        if isinstance(case, dict):
            text = json.dumps(case).encode()
            case = "safetensors", len(text).to_bytes(8, "little") + text + whole[8 + size :]
        suffix, content = case
        file = folder / f"changed.{suffix}"
        file.write_bytes(content)
        load_checkpoint(file)

    note = json.loads(header["__metadata__"]["mer_edge"])

    def with_note(changed: Any) -> Any:
        return header | {"__metadata__": {"mer_edge": json.dumps(changed)}}

    begin = mutants(whole[:4000]).map(lambda head: ("safetensors", head + whole[4000:]))
    pickles = mutants(pickled).map(lambda content: ("pth", content))
    return pickles | pickles | begin | edited(note).map(with_note) | edited(header), take


def corpora(folder: Path) -> Prepared:
    from mer.data.corpus import list_corpus

    root = folder / "corpus"
    digits = st.integers(0, 99).map("{:02d}".format)
    ravdess = st.lists(digits, min_size=6, max_size=8).map("-".join)
    right = st.sampled_from(
        ("01-01-03-01-02-01-05", "03-01-08-02-01-02-24", "02-01-01-01-01-01-01")
    )
    suffixes = st.sampled_from((".mp4", ".wav", ".WAV", "", ".txt", ".mp4.wav"))
    files = st.lists(st.tuples(names, right | ravdess | names, suffixes), min_size=1, max_size=6)

    def take(case: list[tuple[str, str, str]]) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for inside, stem, suffix in case:
            path = root / inside.replace("/", "_") / f"{stem.replace('/', '_')}{suffix}"
            with suppress(OSError, ValueError):
                if path.resolve().is_relative_to(root):
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(WAV)
        try:
            list_corpus(root)
        except MerError as error:
            str(error).encode(errors="surrogateescape")
            raise

    return files, take


SUBJECTS = {
    "specs": Subject(14, specs),
    "bench results": Subject(6, results),
    "ranges": Subject(8, ranges),
    "zips and pictures": Subject(10, zips),
    "caches": Subject(10, caches),
    "checkpoints": Subject(4, checkpoints),
    "corpora's names": Subject(10, corpora),
}
