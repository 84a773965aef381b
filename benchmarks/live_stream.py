"""A camera's pace: how long after its last sample an event comes, and what that costs.

    python benchmarks/live_stream.py ia --seconds 120 --cores 1

A reader thread decodes the sample clip over and over and gives each frame and chunk to the
stream at its time, as a camera and a microphone would. Prints JSON: the events' age (by the
stream's own clock, from the arrival of the window's last sample or frame), CPU time of the whole
process, decoding included, what was dropped, and the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from mer_runtime import Recognizer
from mer_runtime.engines.processor import name_cpu
from mer_runtime.inputs.waveform import mix_down
from mer_runtime.stream import StreamRecognizer

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "portrait.mp4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle")
    parser.add_argument("--clip", type=Path, default=SAMPLE)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=int, help="use only so many of the machine's cores")
    options = parser.parse_args()
    if options.cores:
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[-options.cores :])
    recognizer = Recognizer.load(options.bundle, threads=options.threads)
    stream = StreamRecognizer(recognizer)
    reader = threading.Thread(target=feed, args=(stream, options.clip, options.seconds))
    wall, cpu = time.perf_counter(), time.process_time()
    reader.start()
    ages = [event.age for event in stream.events() if event.filled == 1]
    reader.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    milliseconds = 1000 * np.array(ages)
    figures = {
        "bundle": options.bundle,
        "backend": recognizer.backend.name,
        "clip": options.clip.name,
        "threads": options.threads,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(wall, 1),
        "events": len(ages),
        "age_ms": {f"p{q}": round(float(np.percentile(milliseconds, q)), 1) for q in (50, 90, 95)}
        | {"max": round(float(milliseconds.max()), 1)},
        "cpu_of_one_core": round(cpu / wall, 3),
        "load_before": os.getloadavg()[0],
        "statistics": stream.statistics.to_dict(),
        "processor": name_cpu(),
        "python": platform.python_version(),
    }
    print(json.dumps(figures, indent=1))


def feed(stream: StreamRecognizer, clip: Path, seconds: float) -> None:
    """Push the clip round and round at its own pace, then end the stream."""
    start = time.monotonic()
    for frame, at in rounds(clip):
        if at > seconds:
            break
        # A frame is there when it is shown, a chunk when its last sample is.
        length = frame.samples / frame.sample_rate if isinstance(frame, av.AudioFrame) else 0.0
        time.sleep(max(start + at + length - time.monotonic(), 0.0))
        if isinstance(frame, av.AudioFrame):
            stream.push_audio(mix_down(frame), frame.sample_rate, at)
        else:
            stream.push_frame(partial(frame.to_ndarray, format="rgb24"), at)
    stream.finish()


def rounds(clip: Path) -> Iterator[tuple[Any, float]]:
    """Frames and chunks of one round after another, in order of when they are complete."""
    offset = 0.0
    while True:
        with av.open(str(clip)) as container:
            # Frame threads would hold frames back.
            container.streams.video[0].thread_type = "SLICE"
            waiting: list[tuple[float, float, Any]] = []
            for frame in container.decode():
                length = (
                    frame.samples / frame.sample_rate if isinstance(frame, av.AudioFrame) else 0.0
                )
                waiting.append((frame.time + length, frame.time, frame))
                waiting.sort(key=lambda item: item[0])
                # Files interleave by about half a second.
                while waiting[-1][0] - waiting[0][0] > 0.5:
                    _, at, first = waiting.pop(0)
                    yield first, offset + at
            for _, at, last in waiting:
                yield last, offset + at
            offset += max(end for end, _, _ in waiting)


if __name__ == "__main__":
    main()
