"""Files from others' hands: bundles, specs, results, ranges, zips, caches, checkpoints, names."""

from __future__ import annotations

import gzip
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
from numpy.typing import NDArray

from fuzzing import Subject, edited, mutants, names
from mer_runtime.bundle import Bundle, digest_manifest, load_bundle, write_manifest
from mer_runtime.engines import open_backend
from mer_runtime.errors import MerError
from mer_runtime.files import write_file
from mer_runtime.golden import Golden, write_golden
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.proof.self_test import run_self_test
from mer_runtime.spec import Spec

Prepared = tuple[SearchStrategy[Any], Callable[[Any], object]]

SHIPPED = "ia-int8"
#: A sound without a sample.
WAV = bytes.fromhex(
    "52494646240000005741564566 6d74201000000001000100803e0000007d000002001000 6461746100000000"
)
MANIFEST = "manifest.json"


class Zeros:
    """A backend that answers at once."""

    name, gpu = "zeros", None

    def __init__(self, bundle: Bundle) -> None:
        self.feature_width = 1024
        self._classes = len(bundle.spec.labels)

    def encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(faces), self.feature_width), np.float32)

    def classify(
        self, mfcc: NDArray[np.float32], features: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return np.zeros(self._classes, np.float32)


def copy_bundle(folder: Path) -> Path:
    """The shipped bundle, to be damaged."""
    source = load_bundle(SHIPPED).path
    return Path(shutil.copytree(source, folder / "bundle", dirs_exist_ok=True))


def use(bundle: Path) -> None:
    """What loading does, without its engines."""
    loaded = load_bundle(bundle)
    run_self_test(loaded, Zeros(loaded))


def sign(bundle: Path) -> None:
    """Mend the hashes."""
    content = json.loads((bundle / MANIFEST).read_text())
    write_manifest(bundle, {k: v for k, v in content.items() if k not in ("files", "digest")})


def manifests(folder: Path) -> Prepared:
    bundle = copy_bundle(folder)
    whole = (bundle / MANIFEST).read_bytes()
    document = json.loads(whole)

    def take(case: tuple[Any, bool] | bytes) -> None:
        if isinstance(case, bytes):
            (bundle / MANIFEST).write_bytes(case)
        else:
            content, signed = case
            with suppress(AttributeError, TypeError, UnicodeError):  # no digest of such a thing
                if signed:
                    content["digest"] = digest_manifest(content)
            (bundle / MANIFEST).write_text(json.dumps(content))
        use(bundle)

    return st.tuples(edited(document), st.booleans()) | mutants(whole), take


def goldens(folder: Path) -> Prepared:
    bundle = copy_bundle(folder)
    file = bundle / "golden.npz"
    whole, golden = file.read_bytes(), load_bundle(bundle).golden()
    arrays = st.sampled_from(
        (
            *(np.zeros(0), np.zeros((2, 3)), np.array("a"), np.array(["a", "b"]), np.array(1)),
            *(np.full((9, 9), np.nan), np.zeros((1, 2, 3, 4), np.uint8), np.array([2**62])),
            *(np.zeros(3, complex), np.array([None], object), np.zeros(2, [("a", "i4")])),
        )
    )

    def take(case: bytes | tuple[str, Any]) -> None:
        if isinstance(case, bytes):
            file.write_bytes(case)
        else:
            fields = {name: np.array(getattr(golden, name)) for name in Golden.__dataclass_fields__}
            np.savez_compressed(file, **{**fields, case[0]: case[1]})
        sign(bundle)
        use(bundle)

    write_golden(bundle, golden)
    field = st.sampled_from(list(Golden.__dataclass_fields__))
    return mutants(whole) | st.tuples(field, arrays), take


def no_faces(folder: Path) -> Prepared:
    bundle = copy_bundle(folder)
    file = bundle / "no_face.npy"

    def take(case: bytes) -> None:
        file.write_bytes(case)
        sign(bundle)
        load_bundle(bundle).no_face()

    whole = file.read_bytes()
    # The header is where most can go wrong.
    return mutants(whole) | mutants(whole[:200]).map(lambda head: head + whole[200:]), take


def graphs(folder: Path) -> Prepared:
    bundle = copy_bundle(folder)
    content = gzip.decompress((bundle / "head.onnx.gz").read_bytes())
    spec = load_bundle(bundle).spec
    open_backend(load_bundle(bundle), 1)  # from now on the encoder is found as it was prepared

    def take(case: bytes) -> None:
        (bundle / "head.onnx.gz").write_bytes(gzip.compress(case, 1))
        sign(bundle)
        backend = open_backend(load_bundle(bundle), 1)
        backend.classify(np.zeros(spec.audio.shape, np.float32), np.zeros((15, 1024), np.float32))

    # Where the weights lie nothing is decided.
    small = min(len(content), 40_000)
    head = mutants(content[:small]).map(lambda begin: begin + content[small:])
    end = mutants(content[-small:]).map(lambda rest: content[:-small] + rest)
    return head | end | mutants(content), take


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
    "manifests": Subject(14, manifests),
    "golden inputs": Subject(8, goldens),
    "features of no face": Subject(6, no_faces),
    "graphs": Subject(8, graphs),
    "specs": Subject(14, specs),
    "bench results": Subject(6, results),
    "ranges": Subject(8, ranges),
    "zips and pictures": Subject(10, zips),
    "caches": Subject(10, caches),
    "checkpoints": Subject(4, checkpoints),
    "corpora's names": Subject(10, corpora),
}
