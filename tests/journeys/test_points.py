"""A newcomer's script for each numbered point of what people reach for, run on real parts.

Each is a file in ``points``: at most ten lines of Python or three commands. It runs as a process
of its own, in a folder with clips, a table of them and their cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from own_fusion import FUSION

from mer.cli.prepare import main as mer_prepare
from mer_runtime.inputs.media import read_window
from mer_runtime.spec import Spec

SCRIPTS = sorted((Path(__file__).parent / "points").glob("point_*.*"))
#: What each prints, among other things: a regular expression.
PRINTS = {
    1: r"in answers\.csv\n +of the time .*in answers\.png\n +of the time ",
    2: r"True\nTrue\nTrue\n",
    3: r"True\n",
    4: r"320 True 1\n640 True 1\n",
    5: r"64000 8\n",
    6: r'"face": true, "voice": true',
    7: r"face in 15 of 15 frames",
    8: r'\{"status": "ok".*mer_hops_total [1-9].*ended with 0\n',
    9: r"200 .*</html>",
    10: r"/dev/video97: there is no such camera",
    11: r"happy 3, other 6\n",
    12: r"mean ± deviation of 2 seeds: validation prec1 \d",
    13: r"clip\.mp4: (sad|happy|angry) ",
    14: r"ia-compact & .*\n.*ia-compact-int8 & .*\\end\{tabular\}",
    15: r"encoder +int8 .*in float .*network\.classifier_1",
    16: r"ia-compact-onnx-fp16 fits: written to best\nclip\.mp4: \w+ ",
    17: r"1 of 3\n2 of 3\n3 of 3\n.*MerError: clip\.mp4 holds no cache\.json",
    18: r"clips/a\.wav: (\w+) .*clips/b\.wav: \1 ",
    19: r"loss (\d+\.\d+)\nloss \1\n",
}


def can_trace() -> bool:
    try:
        return subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode == 0
    except OSError:
        return False


def number(script: Path) -> int:
    return int(script.stem.split("_")[1])


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    sample_clip: Path,
    portrait: NDArray[np.uint8],
    write_media: Callable[..., Path],
) -> Path:
    """Where the scripts run."""
    root = tmp_path_factory.mktemp("points")
    shutil.copy(sample_clip, root / "clip.mp4")
    spoken = read_window(sample_clip, Spec()).waveform
    assert spoken is not None
    sound = {"waveform": spoken, "sample_rate": 16_000}
    (root / "clips").mkdir()
    for name in ("voice.wav", "clips/a.wav", "clips/b.wav"):
        write_media(root / name, **sound)
    np.save(root / "voice.npy", spoken)
    sound["waveform"] = np.tile(spoken, 3)[: 9 * 16_000]
    times = np.arange(90) / 10
    write_media(root / "long.mkv", size=(320, 320), picture=portrait, times=times, **sound)
    far = np.full((1080, 1920, 3), 128, np.uint8)
    far[400:656, 900:1156] = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(root / "far.png"), far[..., ::-1])
    lines = ["file,label,actor,start,end"]
    people = [(who, label) for who in ("anna", "ben", "eve") for label in ("happy", "sad", "angry")]
    lines += [f"clip.mp4,{label},{who},{0.1 * i:.1f},4" for i, (who, label) in enumerate(people)]
    (root / "corpus.csv").write_text("\n".join(lines) + "\n")
    (root / "my_fusion.py").write_text(FUSION)
    options = {"bundle": "ia-compact-int8", "source": "clip.mp4", "pace": "real"}
    text = "".join(f'{name} = "{value}"\n' for name, value in options.items())
    (root / "mer.toml").write_text(f"{text}serve = 0\n")
    return root


@pytest.fixture(scope="module")
def cache(folder: Path) -> None:
    """The table, prepared as ``cache`` in that folder."""
    words = [folder / "corpus.csv", "--out", folder / "cache", "--size", 96]
    assert CliRunner().invoke(mer_prepare, list(map(str, words))).exit_code == 0


def test_each_point_has_one_short_script() -> None:
    assert [number(script) for script in SCRIPTS] == list(range(1, 20))
    for script in SCRIPTS:
        text = script.read_text("utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert len(lines) <= (10 if script.suffix == ".py" else 3), script.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_point(script: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    text = script.read_text("utf-8")
    surroundings = {**os.environ}
    if "--ray" in text:
        pytest.importorskip("ray")
        quick = [str(request.getfixturevalue("without_grammar")), os.environ.get("PYTHONPATH", "")]
        surroundings["PYTHONPATH"] = os.pathsep.join(filter(None, quick))
    if "strace" in text and not can_trace():
        pytest.skip("needs strace, and leave to use it")
    if "cache" in text:
        request.getfixturevalue("cache")
    runs: list[str | Path] = [sys.executable] if script.suffix == ".py" else ["bash", "-e"]
    surroundings["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*runs, script], cwd=folder, env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTS[number(script)], done.stdout, re.DOTALL), done.stdout
