"""What is in a bundle: manifest, golden answers, features of no face, graphs."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from fuzzing import Subject, edited, mutants
from mer_runtime.bundle import Bundle, digest_manifest, load_bundle, write_manifest
from mer_runtime.engines import open_backend
from mer_runtime.proof.self_test import run_self_test

Prepared = tuple[SearchStrategy[Any], Callable[[Any], object]]
SHIPPED = "ia-int8"
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
    whole = file.read_bytes()
    with np.load(file) as data:
        fields = dict(data)
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
            np.savez_compressed(file, **{**fields, case[0]: case[1]})
        sign(bundle)
        use(bundle)

    return mutants(whole) | st.tuples(st.sampled_from(list(fields)), arrays), take


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


SUBJECTS = {
    "manifests": Subject(14, manifests),
    "golden inputs": Subject(8, goldens),
    "features of no face": Subject(6, no_faces),
    "graphs": Subject(8, graphs),
}
