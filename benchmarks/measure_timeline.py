"""How fast a long clip's timeline is, and whether its memory stays flat. Prints JSON.

    python benchmarks/measure_timeline.py ia-int8 FOLDER --minutes 5
    python benchmarks/measure_timeline.py ia-int8 FOLDER --minutes 60

The clips of FOLDER in turn, 640 x 360 at 30 pictures a second, make the first five minutes; a
longer clip repeats those. ``mer-run --timeline`` reads it as a process of its own, with its start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from mer_runtime.inputs.waveform import mix_down

RATE, SAMPLE_RATE = 30, 48_000
#: Seconds that are encoded.
PIECE = 300
#: Seconds from one look at the memory to the next, and those until it is first counted.
EVERY, WARM_UP = 0.5, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle")
    parser.add_argument("folder", type=Path, help="of .mp4 clips with a face and a voice each")
    parser.add_argument("--minutes", type=int, default=5, help="a multiple of 5 (default: 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        clip = Path(work) / "clip.mp4"
        seconds = make_clip(sorted(options.folder.rglob("*.mp4")), clip, options.minutes * 60)
        print(json.dumps(measure(options.bundle, clip, seconds, Path(work) / "answers.csv")))


def measure(bundle: str, clip: Path, seconds: float, out: Path) -> dict[str, object]:
    """Figures of one run."""
    mer_run = Path(sys.executable).with_name("mer-run")
    command = [str(mer_run), bundle, str(clip), "--timeline", str(out)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory = []
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/statm").read_text().split()
        except OSError:
            break
        if time.perf_counter() - began > WARM_UP and len(status) > 1 and int(status[1]):
            memory.append(int(status[1]) * os.sysconf("SC_PAGESIZE") / 1e6)
        time.sleep(EVERY)
    wall = time.perf_counter() - began
    if process.wait():
        raise SystemExit(f"mer-run ended with {process.returncode}")
    spent = os.times()
    cpu = spent.children_user + spent.children_system
    found: dict[str, object] = {
        "bundle": bundle,
        "clip_seconds": round(seconds, 1),
        "wall_seconds": round(wall, 1),
        "times_real_time": round(seconds / wall, 1),
        "cpu_seconds": round(cpu, 1),
        "cores": os.cpu_count(),
    }
    if memory:
        first = max(memory[: max(len(memory) // 10, 1)])
        found["memory_mb"] = {
            "first_tenth": round(first, 1),
            "most": round(max(memory), 1),
            "growth": round(max(memory) - first, 1),
        }
    return found


def make_clip(clips: list[Path], out: Path, seconds: int) -> float:
    """Write clips in turn to ``out``; the seconds that came of it."""
    random.Random(1).shuffle(clips)
    if not clips:
        raise SystemExit("no .mp4 in the folder")
    piece = out.with_name("piece.mp4")
    length = _encode(clips, piece, min(seconds, PIECE))
    times = max(round(seconds / PIECE), 1)
    with av.open(str(out), "w") as target:
        streams: dict[int, Any] = {}
        newest: dict[int, int] = {}  # time stamp in each, as sound of a piece reaches into the next
        for i in range(times):
            with av.open(str(piece)) as source:
                for stream in source.streams:
                    if stream.index not in streams:
                        streams[stream.index] = target.add_stream_from_template(stream)
                for packet in source.demux():
                    if packet.dts is None or packet.pts is None:
                        continue
                    later = round(i * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + later, packet.dts + later
                    index = packet.stream.index
                    if packet.dts > newest.get(index, -SAMPLE_RATE):
                        newest[index] = packet.dts
                        packet.stream = streams[index]
                        target.mux(packet)
    return times * length


def _encode(clips: list[Path], out: Path, seconds: int) -> float:
    with av.open(str(out), "w") as target:
        video: Any = target.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        audio: Any = target.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        pictures = samples = 0
        while pictures < seconds * RATE:
            clip = clips.pop(0)
            clips.append(clip)
            with av.open(str(clip)) as source:
                for shown in source.decode(video=0):
                    frame = shown.reformat(640, 360, "yuv420p")
                    frame.pts, frame.time_base = pictures, Fraction(1, RATE)
                    pictures += 1
                    target.mux(video.encode(frame))
            with av.open(str(clip)) as source:
                heard = np.concatenate([mix_down(frame) for frame in source.decode(audio=0)])
            lacking = pictures * SAMPLE_RATE // RATE - samples
            heard = np.pad(heard, (0, max(lacking - len(heard), 0)))[:lacking]
            sound = av.AudioFrame.from_ndarray(heard[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = SAMPLE_RATE, samples
            sound.time_base = Fraction(1, SAMPLE_RATE)
            samples += lacking
            target.mux(audio.encode(sound))
        target.mux(video.encode(None))
        target.mux(audio.encode(None))
    return pictures / RATE


if __name__ == "__main__":
    main()
