"""The examples run as their first lines say."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def run(name: str, *arguments: str, lines: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


@pytest.mark.slow
def test_python_api_prints_an_event_a_hop_that_the_consumer_understands(sample_clip: Path) -> None:
    events = [ast.literal_eval(line) for line in run("python_api.py", str(sample_clip))]
    assert [e["time"] for e in events] == [round(0.48 * i, 3) for i in range(1, 10)]
    lines = "\n".join(json.dumps(event) for event in events)
    told = run("json_consumer.py", lines=lines)
    sure = [e["label"] for e in events if max(e["probabilities"].values()) >= 0.5]
    assert told
    first = next(e for e in events if e["label"] == sure[0])
    assert told[0].endswith(f"face 1: {sure[0]}{'' if first['voice'] else ' (no voice)'}")
    assert len(told) == 1 + sum(a != b for a, b in pairwise(sure))


def test_consumer_tells_of_missing_kinds_and_lost_sources() -> None:
    event = {"time": 1.0, "label": "sad", "probabilities": {"sad": 0.9, "calm": 0.1}}
    event |= {"face": False, "voice": True, "track": None}
    unsure = event | {"time": 2.0, "label": "calm", "probabilities": {"sad": 0.4, "calm": 0.45}}
    nothing = event | {"time": 3.0, "label": None, "probabilities": {}, "voice": False}
    lost = {"source": "/dev/video0", "state": "lost"}
    lines = "\n".join(json.dumps(m) for m in (event, unsure, lost, nothing))
    assert run("json_consumer.py", lines=lines) == [
        "    1.00 s  somebody: sad (no face)",
        "/dev/video0: lost",
        "    3.00 s  somebody: nothing (no face and no voice)",
    ]
