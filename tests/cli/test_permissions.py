"""What is there and may not be read is told as such: by each command, and by the Python API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mer_runtime.bundle import shipped_bundle
from mer_runtime.inputs.face import SHIPPED_YUNET

#: Root without its rights is held to a file's mode as everybody is.
PLAIN = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []

CALLS = """
import sys
from pathlib import Path
import mer, mer_bench
from mer.checkpoint import load_encoder
from mer.data.cache import Cache
from mer.data.corpus import list_corpus
from mer.evaluate.classifier import open_model
from mer.evaluate.own_clips import read_table
from mer_calibration import Ranges
from mer_export import export_bundle
from mer_runtime import MerError, Recognizer, load_bundle
from mer_runtime.inputs.face import YuNetDetector

open_folder, shut = Path(sys.argv[1]), Path(sys.argv[2])
recognizer = Recognizer.load("ia-compact-int8", threads=1)
calls = {
    "bundle": [load_bundle, open_model],
    "clip.mp4": [recognizer.predict, lambda path: recognizer.predict(str(path))],
    "detector.onnx": [YuNetDetector],
    "model.safetensors": [mer.load_checkpoint, load_encoder, open_model, export_bundle],
    "network.py": [lambda path: mer.add_model(f"{path}:Fusion")],
    "ranges.json": [Ranges.read, lambda path: export_bundle("ia-compact", ranges=path)],
    "result.json": [mer_bench.read_result],
    "cache": [Cache.open, lambda path: export_bundle("ia-compact", path)],
    "table.csv": [list_corpus, lambda path: read_table(path, Path("."), ("happy",))],
}
for name, functions in calls.items():
    for folder in (open_folder, shut):
        for number, function in enumerate(functions):
            try:
                function(folder / name)
            except MerError as error:
                if "Permission denied" in str(error) and name in str(error):
                    continue
                print(name, number, folder.name, repr(error))
            except Exception as error:
                print(name, number, folder.name, repr(error))
            else:
                print(name, number, folder.name, "no error")
try:
    read_table(open_folder.parent / "whole.csv", shut, ("happy",))
except MerError as error:
    print(error)
for function in (list_corpus, lambda path: mer.prepare_cache(path, "out")):
    try:
        function(shut / "folder")
    except MerError as error:
        if "Permission denied" not in str(error):
            print(error)
"""


@pytest.fixture(scope="module")
def forbidden(tmp_path_factory: pytest.TempPathFactory, sample_clip: Path) -> Iterator[Path]:
    """A folder ``open`` of files of mode 0, and a folder ``shut`` of mode 0 with the same."""
    root = tmp_path_factory.mktemp("forbidden")
    bundle = shipped_bundle("ia-compact-int8")
    assert bundle is not None
    (root / "whole.csv").write_text("file,label\nclip.mp4,happy\n")
    for folder in (root / "open", root / "shut"):
        (folder / "cache").mkdir(parents=True)
        (folder / "folder").mkdir()
        shutil.copytree(bundle, folder / "bundle")
        shutil.copy(sample_clip, folder / "clip.mp4")
        shutil.copy(SHIPPED_YUNET, folder / "detector.onnx")
        for name in ("model.safetensors", "network.py", "ranges.json", "result.json", "table.csv"):
            (folder / name).write_text("some text")
    for path in (*(root / "open").iterdir(), root / "shut"):
        path.chmod(0)
    yield root
    for path in (root / "shut", *(root / "open").iterdir()):
        path.chmod(0o700)


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    words = [*PLAIN, *map(str, command)]
    try:
        return subprocess.run(
            words, capture_output=True, text=True, check=False, cwd=cwd,
            env=os.environ | variables,
        )  # fmt: skip
    except OSError:
        pytest.skip("there is no setpriv here")


def test_the_api_says_so(forbidden: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folders = (forbidden / "open", forbidden / "shut")
    done = run(sys.executable, "-c", CALLS, *folders, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("mer.cli.evaluate", ("shut/model.safetensors", "cache"), "model.safetensors"),
        ("mer.cli.evaluate", ("shut/bundle", "cache"), "bundle"),
        ("mer.cli.evaluate", ("ia-compact", "cache", "--model", "shut/network.py:A"), "network.py"),
        ("mer.cli.evaluate", ("ia-compact", "cache", "--model", "open/network.py:A"), "network.py"),
        ("mer_runtime.cli", ("ia-compact-int8", "shut/clip.mp4"), "clip.mp4"),
        ("mer_runtime.cli", ("shut/bundle", "open/clip.mp4"), "bundle"),
    ],
)
def test_commands_say_so(
    forbidden: Path, command: str, arguments: tuple[str, ...], named: str
) -> None:
    (forbidden / "cache").mkdir(exist_ok=True)
    (forbidden / "cache" / "cache.json").touch()
    code = f"from {command} import main; main()"
    done = run(sys.executable, "-c", code, *arguments, cwd=forbidden)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("Error: ")
    assert f"{named}: " in done.stderr
    assert "Permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_doctor_answers_without_a_cache(forbidden: Path) -> None:
    """Nobody knows what is in a folder that may not be entered: nothing is kept there."""
    code = "from mer_runtime.cli.doctor import main; main()"
    words = (sys.executable, "-c", code, "--threads", "1", "--json")
    done = run(*words, cwd=forbidden, MER_CACHE=str(forbidden / "shut" / "cache"))
    assert done.returncode == 0, done.stderr
    found = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["cache"]["state"] == "wrong"
    assert "can't be written" in found["cache"]["text"]
