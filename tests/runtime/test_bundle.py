"""Reading bundles: every way in which one can be foreign, edited or damaged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mer_runtime
from mer_runtime.bundle import (
    digest_manifest,
    list_shipped_bundles,
    load_bundle,
    shipped_bundle,
    write_no_face,
)
from mer_runtime.errors import BundleError
from mer_runtime.feeds import Temperatures

WriteBundle = Callable[..., Path]


@pytest.fixture
def bundle(write_tiny_bundle: WriteBundle) -> Path:
    """A bundle of a test's own, to be damaged."""
    return write_tiny_bundle()


def edit(bundle: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = True) -> None:
    """Change the manifest, with a valid digest unless ``sign`` is false."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    if sign:
        manifest["digest"] = digest_manifest(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_good_bundle_loads(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.encoder == bundle / "encoder.onnx"
    assert loaded.head == bundle / "head.onnx"
    assert loaded.face_detector is None
    assert loaded.spec.labels[2] == "happy"
    assert loaded.temperatures == Temperatures(2.0, 2.0, 2.0)
    assert loaded.engine == {}
    assert loaded.doubtful_margins == {"both": 1e-3, "audio": 1e-3, "video": 1e-3}
    golden = loaded.golden()
    assert len(golden.cases) == len(golden.answers) == 2


def test_engine_settings_are_read(write_tiny_bundle: WriteBundle) -> None:
    loaded = load_bundle(write_tiny_bundle(engine={"dialect": "x86"}, temperatures=1))
    assert loaded.engine == {"dialect": "x86"}
    assert loaded.temperatures == Temperatures()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["spec"]["labels"].__setitem__(2, "glad"),
        lambda m: m["engine"].update(inference_precision="bf16"),
        lambda m: m.update(temperatures=0.5),
    ],
    ids=["label", "engine", "temperature"],
)
def test_edited_manifest_is_noticed(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit(bundle, change, sign=False)
    with pytest.raises(BundleError, match="was edited"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx"])
def test_changed_byte_in_a_graph_is_noticed(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was changed or damaged"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["encoder.onnx", "head.onnx", "golden.npz", "no_face.npy"])
def test_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "format 99 needs another version"),
        (lambda m: m.update(format=3), "format 3 needs another version"),
        (lambda m: m.pop("spec"), "incomplete"),
        (lambda m: m["spec"].update(fusion=""), "fusion must be"),
        (lambda m: m["spec"].update(unheard_of=1), "unknown field unheard_of"),
        (lambda m: m.update(target="abacus"), "can't run target abacus"),
        (lambda m: m["graphs"].update(head="../head.onnx"), "no hash of"),
        (lambda m: m["graphs"].pop("head"), "incomplete or malformed: 'head'"),
        (lambda m: m.update(graphs=["encoder.onnx"]), "incomplete or malformed"),
        (lambda m: m.pop("temperatures"), "incomplete or malformed: 'temperatures'"),
        (lambda m: m.pop("engine"), "incomplete or malformed: 'engine'"),
        (lambda m: m.pop("doubtful_margins"), "incomplete or malformed: 'doubtful_margins'"),
        (lambda m: m.update(engine="f32"), "engine settings aren't an object"),
        (lambda m: m["files"].update({"../x": {"sha256": "0"}}), "outside the bundle"),
        (lambda m: m["files"].pop("golden.npz"), "no hash of golden.npz"),
        (lambda m: m["files"].pop("no_face.npy"), "no hash of no_face.npy"),
    ],
)
def test_manifest_that_cannot_be_honoured(
    bundle: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "temperature", [0, -1.5, float("nan"), float("inf"), "1", True, None, [1.0]]
)
@pytest.mark.parametrize("all_of_them", [True, False])
def test_temperature_that_divides_nothing(
    bundle: Path, temperature: Any, all_of_them: bool
) -> None:
    given = temperature if all_of_them else {"both": 1, "audio": 1, "video": temperature}
    edit(bundle, lambda m: m.update(temperatures=given))
    with pytest.raises(BundleError, match="temperature must be a finite number above 0, not"):
        load_bundle(bundle)


@pytest.mark.parametrize("given", [{}, {"both": 1, "audio": 1}, dict.fromkeys("abc", 1)])
def test_temperatures_of_other_windows(bundle: Path, given: dict[str, float]) -> None:
    edit(bundle, lambda m: m.update(temperatures=given))
    with pytest.raises(BundleError, match="temperatures must be of both, audio, video, not of"):
        load_bundle(bundle)


@pytest.mark.parametrize("margin", [-1e-9, float("nan"), float("inf")])
def test_margin_that_bounds_nothing(bundle: Path, margin: float) -> None:
    edit(bundle, lambda m: m["doubtful_margins"].update(video=margin))
    with pytest.raises(BundleError, match="doubtful_margins must be finite and at least 0, not"):
        load_bundle(bundle)


@pytest.mark.parametrize("margins", [None, 0.1, [0.1], {"both": "wide"}, {"both": None}])
def test_margins_that_are_none(bundle: Path, margins: Any) -> None:
    edit(bundle, lambda m: m.update(doubtful_margins=margins))
    with pytest.raises(BundleError, match="its manifest is incomplete or malformed"):
        load_bundle(bundle)


@pytest.mark.parametrize("temperature", [1e-320, 1e-3, 1e3, 1e308, 10**19])
def test_temperature_beyond_any_that_is_fitted(bundle: Path, temperature: float) -> None:
    edit(bundle, lambda m: m["temperatures"].update(audio=temperature))
    with pytest.raises(BundleError, match=r"temperature must be from 0\.01 to 100, not"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 1, "a": "\\ud800"}',
        '{"format": 1, "a": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"format": 1, "temperature": ' + "9" * 5000 + "}",
        '{"format": ' + "9" * 400 + "}",
    ],
    ids=["surrogate", "deep", "huge", "huge format"],
)
def test_json_that_no_exporter_writes(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"its manifest\.json can't be read: .") as caught:
        load_bundle(bundle)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "..", ".", "", "/etc/passwd", "a/b"])
def test_file_names_that_are_none(bundle: Path, name: str) -> None:
    edit(bundle, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleError):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "ä" * 5000])
def test_bundle_names_that_are_none(name: str) -> None:
    with pytest.raises(BundleError, match="there is no such bundle"):
        load_bundle(name)


@pytest.mark.parametrize("name", ["golden.npz", "no_face.npy", "encoder.onnx"])
def test_file_that_changes_after_it_was_hashed(bundle: Path, name: str) -> None:
    loaded = load_bundle(bundle)
    content = loaded.read(name)
    (bundle / name).write_bytes(content + b"x")
    with pytest.raises(BundleError, match=rf"{name} was changed or damaged"):
        loaded.read(name)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} can't be read"):
        loaded.read(name)
    with pytest.raises(BundleError, match="its manifest lists no hash of elsewhere"):
        loaded.read("elsewhere")


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


def test_golden_that_is_no_archive(bundle: Path, resign: Callable[..., None]) -> None:
    (bundle / "golden.npz").write_bytes(b"PK nothing")
    resign(bundle)
    with pytest.raises(BundleError, match="golden answers can't be read"):
        load_bundle(bundle).golden()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (b"not an array", "no_face.npy can't be read"),
        (np.zeros((2, 16), np.float32), "isn't a row of finite float32"),
        (np.zeros(16), "isn't a row of finite float32"),
        (np.full(16, np.nan, np.float32), "isn't a row of finite float32"),
    ],
    ids=["foreign", "shape", "type", "nan"],
)
def test_features_of_no_face_that_are_none(
    bundle: Path, features: Any, message: str, resign: Callable[..., None]
) -> None:
    if isinstance(features, bytes):
        (bundle / "no_face.npy").write_bytes(features)
    else:
        write_no_face(bundle, features)
    resign(bundle)
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle).no_face()


class TestShipped:
    """A copy of the package with a bundle in it, in a process that imports the copy."""

    @pytest.fixture
    def package(self, bundle: Path, tmp_path: Path) -> Path:
        source = Path(mer_runtime.__file__).parent
        ignored = shutil.ignore_patterns("bundles", "__pycache__")
        copy = shutil.copytree(source, tmp_path / "site" / "mer_runtime", ignore=ignored)
        shutil.copytree(bundle, copy / "bundles" / "tiny")
        (copy / "bundles" / "no bundle").mkdir()
        shutil.copytree(bundle, copy / "bundles" / ".tiny.draft.1")  # of an export that was killed
        return copy

    def run(self, package: Path, code: str, cwd: Path) -> str:
        start = f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
        command = [sys.executable, "-c", f"{start}from mer_runtime.bundle import *\n{code}"]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def test_is_found_by_its_name(self, package: Path, tmp_path: Path) -> None:
        (tmp_path / "cwd").mkdir()
        code = "print(load_bundle('tiny').path); print(shipped_bundle('no bundle'))"
        told = self.run(package, code, tmp_path / "cwd").splitlines()
        assert told == [str(package / "bundles" / "tiny"), "None"]

    def test_path_of_that_name_comes_first(self, package: Path, bundle: Path) -> None:
        told = self.run(package, "print(load_bundle('tiny').path)", bundle.parent)
        assert told == "tiny"

    def test_unknown_name_is_told_what_ships(self, package: Path, tmp_path: Path) -> None:
        code = "try: load_bundle('x')\nexcept mer_runtime.errors.BundleError as e: print(e)"
        told = self.run(package, f"import mer_runtime.errors\n{code}", tmp_path)
        assert told.startswith("x: there is no such bundle: make one with mer-export")
        assert told.endswith("or take one that ships (tiny)")

    @pytest.mark.parametrize("name", ["../tiny", "", ".", "unheard-of"])
    def test_other_names_are_none(self, name: str) -> None:
        assert shipped_bundle(name) is None

    def test_every_one_in_this_tree_loads(self) -> None:
        for name in list_shipped_bundles():
            assert load_bundle(name).precision == "int8"
