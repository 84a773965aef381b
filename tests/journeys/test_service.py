"""A newcomer leaves ``mer-run`` on: options in a file, a page, health and metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from mer_runtime import LiveSession, Recognizer, parse_source
from mer_runtime.live.session import Input


def test_options_in_a_file_health_and_metrics(sample_clip: Path, tmp_path: Path) -> None:
    config = tmp_path / "mer.toml"
    config.write_text(f'bundle = "ia-int8"\nsource = "{sample_clip}"\npace = "real"\nserve = 0\n')
    command = [Path(sys.executable).with_name("mer-run"), "--config", config]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    url = next(line for line in process.stderr if line.startswith("Page: "))[6:].strip()
    process.stdout.readline()  # the first answer
    assert json.load(urlopen(f"{url}health"))["status"] == "ok"
    assert b"\nmer_hops_total " in urlopen(f"{url}metrics").read()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_sound_alone_from_python(sample_clip: Path) -> None:
    source = Input(parse_source(str(sample_clip)), video=False)
    session = LiveSession(Recognizer.load("ia-int8"), [source], pace="fast")
    answers = [one for one in session.run() if hasattr(one, "label")]
    assert answers[-1].voice
    assert not answers[-1].face
    assert answers[-1].audio_track == 1
