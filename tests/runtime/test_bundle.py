"""Reading bundles: every way in which one can be foreign, edited or damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mer_runtime.bundle import digest_manifest, load_bundle, write_manifest
from mer_runtime.errors import BundleError


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = True) -> None:
    """Change the manifest, with a valid digest unless ``sign`` is false."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    if sign:
        manifest["digest"] = digest_manifest(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_good_bundle_loads(copy: Path) -> None:
    loaded = load_bundle(copy)
    assert loaded.graph.is_file()
    assert loaded.face_detector is None
    assert loaded.spec.labels[2] == "happy"
    golden = loaded.golden()
    assert len(golden.cases) == len(golden.answers) == 5


def test_edited_label_is_noticed(copy: Path) -> None:
    edit(copy, lambda m: m["spec"]["labels"].__setitem__(2, "glad"), sign=False)
    with pytest.raises(BundleError, match="was edited"):
        load_bundle(copy)


def test_changed_byte_in_the_graph_is_noticed(copy: Path) -> None:
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx was changed or damaged"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "format 99 needs another version"),
        (lambda m: m.pop("spec"), "incomplete"),
        (lambda m: m["spec"].update(fusion="xx"), "fusion must be"),
        (lambda m: m["spec"].update(unheard_of=1), "unknown field unheard_of"),
        (lambda m: m.update(target="abacus"), "can't run target abacus"),
        (lambda m: m["graphs"].update(clip="../model.onnx"), "no hash of"),
        (lambda m: m["files"].update({"../x": {"sha256": "0"}}), "outside the bundle"),
        (lambda m: m["files"].pop("golden.npz"), "no hash of golden.npz"),
    ],
)
def test_manifest_that_cannot_be_honoured(
    copy: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(copy, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "another tool"}'])
def test_foreign_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="manifest"):
        load_bundle(tmp_path)


def test_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        load_bundle(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="make one with mer-export"):
        load_bundle(tmp_path / "nowhere")


def test_golden_that_is_no_archive(copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "golden.npz").write_bytes(b"PK nothing")
    write_manifest(copy, {k: v for k, v in content.items() if k not in ("files", "digest")})
    with pytest.raises(BundleError, match="golden answers can't be read"):
        load_bundle(copy).golden()
