"""The bundle: a folder with graphs, manifest and golden answers, checked before use.

``docs/reference/bundle.md`` describes the format. Reading needs nothing but the standard library
and numpy; ``mer_export`` writes bundles with the functions at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mer_runtime.arrays import read_array
from mer_runtime.documents import read_json
from mer_runtime.errors import BundleError
from mer_runtime.feeds import Temperatures
from mer_runtime.files import find_mode, hash_file, unpack
from mer_runtime.golden import GOLDEN_FILE, Golden, read_golden
from mer_runtime.registry import list_targets
from mer_runtime.spec import Spec

#: One of ``registry.list_targets()``.
Target = str
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: Checkpoints that come with mer-edge, in ``mer_weights``: here, for what is said where one of them
#: is named in place of a bundle.
SHIPPED_CHECKPOINTS = ("ia", "it", "lt", "ia-compact")
#: What this version writes, and the only one it reads.
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
NO_FACE_FILE = "no_face.npy"
#: The manifest's own hash, over everything else in it.
DIGEST_FIELD = "digest"

#: Of logits, between which rounding decides.
LARGEST_MARGIN = 1e6

#: The graphs: crops to frame features, and MFCCs with a window's features to logits.
ENCODER, HEAD = "encoder", "head"
#: The graphs' inputs and outputs.
FACES, FEATURES, MFCC, LOGITS = "faces", "features", "mfcc", "logits"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked against its manifest.

    Attributes:
        temperatures: what logits are divided by before softmax.
        engine: the settings that its engine was proved with, such as
            ``{"inference_precision": "f32"}``.
        doubtful_margins: by what is shown (``both``, ``audio``, ``video``), how close the logits
            of two classes must be for rounding to decide between them.
    """

    path: Path
    manifest: Mapping[str, Any]
    spec: Spec
    target: Target
    precision: Precision
    temperatures: Temperatures
    engine: Mapping[str, Any]
    doubtful_margins: Mapping[str, float]

    @property
    def encoder(self) -> Path:
        """The graph from crops to frame features."""
        return self.path / str(self.manifest["graphs"][ENCODER])

    @property
    def head(self) -> Path:
        """The graph from MFCCs and a window's features to logits."""
        return self.path / str(self.manifest["graphs"][HEAD])

    @property
    def face_detector(self) -> Path | None:
        """The YuNet file, where the bundle carries one."""
        name = self.manifest["face_detector"]
        return self.path / str(name) if name else None

    def read(self, name: str) -> bytes:
        """Content of a file that the manifest lists, with the hash that it had there.

        What is used is what was hashed: a file that changes after the bundle was loaded isn't.

        Raises:
            BundleError: it isn't listed, can't be read, or was changed.
        """
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise BundleError(self.path, f"its manifest lists no hash of {name}")
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise BundleError(self.path, f"{name} can't be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise BundleError(self.path, _describe_change(name))
        return content

    def read_graph(self, file: Path) -> bytes:
        """Content of one of its graphs' files, unpacked where it is packed.

        Raises:
            BundleError: as ``read``.
            OSError: it can't be unpacked.
        """
        return unpack(self.read(file.name), file.name)

    def golden(self) -> Golden:
        """Read ``golden.npz``.

        Raises:
            BundleError: it can't be read.
        """
        content = self.read(GOLDEN_FILE)
        try:
            return read_golden(content)
        except ValueError as error:
            raise BundleError(self.path, f"its golden answers can't be read: {error}") from error

    def no_face(self) -> NDArray[np.float32]:
        """The float model's features (F,) of a black crop, which stands for a missing face.

        Raises:
            BundleError: they can't be read, or aren't finite numbers of that shape.
        """
        content = self.read(NO_FACE_FILE)
        try:
            features = read_array(content)
        except ValueError as error:
            raise BundleError(self.path, f"its {NO_FACE_FILE} can't be read: {error}") from error
        if features.ndim != 1 or features.dtype != np.float32 or not np.isfinite(features).all():
            raise BundleError(self.path, f"its {NO_FACE_FILE} isn't a row of finite float32")
        return features


def load_bundle(bundle: str | Path) -> Bundle:
    """Read a manifest and check every file's hash.

    Args:
        bundle: its folder, or, where there is no such path, the name of one that ships.

    Raises:
        BundleError: the folder isn't a bundle, was edited, or needs another version.
    """
    path = Path(bundle)
    if not os.path.lexists(path):
        path = shipped_bundle(str(bundle)) or path
    if not os.path.lexists(path) and str(bundle) in SHIPPED_CHECKPOINTS:
        raise BundleError(path, _name_bundle(str(bundle)))
    if not stat.S_ISDIR(find_mode(path, partial(BundleError, path))):
        shipped = ", ".join(list_shipped_bundles())
        others = f", or take one that ships ({shipped})" if shipped else ""
        raise BundleError(path, f"there is no such bundle: make one with mer-export{others}")
    try:
        manifest = read_json(path / MANIFEST_FILE)
    except FileNotFoundError:
        raise BundleError(path, f"not a bundle: it has no {MANIFEST_FILE}") from None
    except (OSError, ValueError) as error:
        raise BundleError(path, f"its {MANIFEST_FILE} can't be read: {error}") from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise BundleError(path, f"its {MANIFEST_FILE} isn't mer-edge's")
    if manifest["format"] != FORMAT_VERSION:
        raise BundleError(
            path,
            f"bundle format {manifest['format']} needs another version of mer-edge "
            f"(this one reads {FORMAT_VERSION})",
        )
    if manifest.get(DIGEST_FIELD) != digest_manifest(manifest):
        raise BundleError(path, f"{MANIFEST_FILE} was edited: export the bundle again")
    try:
        spec = Spec.from_dict(manifest["spec"])
        target, precision = manifest["target"], manifest["precision"]
        files = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
        needed = [str(manifest["graphs"][name]) for name in (ENCODER, HEAD)]
        needed += [GOLDEN_FILE, NO_FACE_FILE]
        if manifest["face_detector"]:
            needed.append(manifest["face_detector"])
        temperatures, engine = Temperatures.read(manifest["temperatures"]), manifest["engine"]
        margins = _read_margins(manifest["doubtful_margins"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(path, f"its manifest is incomplete or malformed: {error}") from error
    for name, value, known in (
        ("target", target, list_targets()),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise BundleError(path, f"can't run {name} {value}, only {', '.join(known)}")
    if not isinstance(engine, dict):
        raise BundleError(path, "its manifest's engine settings aren't an object")
    unlisted = [name for name in needed if name not in files]
    if unlisted:
        raise BundleError(path, f"its manifest lists no hash of {unlisted[0]}")
    for name, expected in files.items():
        if Path(name).name != name or "\0" in name:
            raise BundleError(path, f"its manifest names a file outside the bundle: {name}")
        try:
            if hash_file(path / name) != expected:
                raise BundleError(path, _describe_change(name))
        except FileNotFoundError:
            reason = f"{name} is missing: copy or export the bundle again"
            raise BundleError(path, reason) from None
        except OSError as error:
            raise BundleError(path, f"{name} can't be read: {error.strerror}") from error
    return Bundle(path, manifest, spec, target, precision, temperatures, engine, margins)


def _describe_change(name: str) -> str:
    return f"{name} was changed or damaged (hash mismatch): copy or export it again"


def _read_margins(value: Mapping[str, Any]) -> dict[str, float]:
    """The doubtful margins as a manifest has them.

    Raises:
        ValueError: one isn't a finite number from 0 to ``LARGEST_MARGIN``.
    """
    margins = {str(shown): float(margin) for shown, margin in value.items()}
    if not all(math.isfinite(margin) and margin >= 0 for margin in margins.values()):
        raise ValueError(f"doubtful_margins must be finite and at least 0, not {value}")
    if max(margins.values(), default=0.0) > LARGEST_MARGIN:
        raise ValueError(f"doubtful_margins must be at most {LARGEST_MARGIN:g}, not {value}")
    return margins


def shipped_bundle(name: str) -> Path | None:
    """The folder of a bundle that comes with mer-edge, or None if none is called ``name``."""
    return _bundles_folder() / name if name in list_shipped_bundles() else None


def _name_bundle(checkpoint: str) -> str:
    """What to say where a shipped checkpoint is named in place of a bundle."""
    own = [name for name in list_shipped_bundles() if name.rpartition("-")[0] == checkpoint]
    made = f"its bundle is {own[0]}" if own else f"make a bundle of it with mer-export {checkpoint}"
    return f"this is a checkpoint, and no bundle: {made}"


def list_shipped_bundles() -> list[str]:
    """Names of the bundles that come with mer-edge, sorted."""
    folders = (manifest.parent.name for manifest in _bundles_folder().glob(f"*/{MANIFEST_FILE}"))
    return sorted(name for name in folders if not name.startswith("."))  # not a draft's


def _bundles_folder() -> Path:
    return Path(str(resources.files("mer_runtime"))) / "bundles"


def digest_manifest(manifest: Mapping[str, Any]) -> str:
    """sha256 over a manifest's content, its own digest left out."""
    content = {name: value for name, value in manifest.items() if name != DIGEST_FIELD}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` with the hash of every other file in ``folder`` and its own."""
    files = {
        file.name: {"sha256": hash_file(file), "bytes": file.stat().st_size}
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != MANIFEST_FILE  # engines built here lie in a folder
    }
    manifest: dict[str, Any] = {"format": FORMAT_VERSION, **content, "files": files}
    manifest[DIGEST_FIELD] = digest_manifest(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def write_no_face(folder: Path, features: NDArray[np.float32]) -> None:
    """Write ``no_face.npy``: features (F,) of a black crop."""
    np.save(folder / NO_FACE_FILE, features)


def measure_graphs(bundle: Bundle) -> int:
    """Bytes of a bundle's graphs with the weights beside them, without engines built from them."""
    stems = {graph_stem(bundle.encoder), graph_stem(bundle.head)}
    built = set(bundle.engine.get("files", {}).values())
    return sum(
        int(entry["bytes"])
        for name, entry in bundle.manifest["files"].items()
        if graph_stem(Path(name)) in stems and name not in built
    )


def graph_stem(file: Path) -> str:
    """What the names of a graph's files share: ``encoder.xml.gz`` to ``encoder``."""
    return file.name.partition(".")[0]
