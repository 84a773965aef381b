"""Many hops at full speed through a stream: does its memory stay flat? Prints JSON.

    python benchmarks/soak_stream.py ia --hops 100000 --out soak.json

The sample clip's frames and sound go round and round. Every so often something is wrong: no
face, another frame size, silence, a gap, a late chunk, samples that are not numbers, another
sample rate, a clock set back.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime import Recognizer
from mer_runtime.inputs.waveform import mix_down, resample
from mer_runtime.stream import StreamRecognizer

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "portrait.mp4"
#: Hops before memory is first read: engines and allocators have their buffers by then.
WARM_UP = 1000
#: Pixels: a frame's longer side. More only costs the detector time.
SIDE = 160
#: Slots from one trouble to the next: longer than a window, so that full windows come between.
CALM = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle")
    parser.add_argument("--hops", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the JSON here, as it goes")
    options = parser.parse_args()
    recognizer = Recognizer.load(options.bundle, threads=options.threads)
    pictures, sound, rate = read_sample(recognizer.spec.video.slot)
    stream = StreamRecognizer(recognizer, live=False)
    slot = recognizer.spec.video.slot
    events = 0
    memory: list[float] = []
    began = time.perf_counter()
    offset = 0.0
    number = 0
    while events < options.hops:
        now = offset + number * slot
        trouble = number // CALM % 8 if number % CALM == CALM - 1 else None
        if trouble == 7:
            offset -= 3600.0
            now -= 3600.0
        push(stream, pictures, sound, rate, number, now, slot, trouble)
        number += 1
        for _ in stream.events():
            events += 1
            if events >= WARM_UP and events % max(options.hops // 100, 1) == 0:
                memory.append(resident())
                report(options, stream, events, memory, time.perf_counter() - began)
    stream.finish()
    print(json.dumps(report(options, stream, events, memory, time.perf_counter() - began)))


def push(
    stream: StreamRecognizer,
    pictures: list[NDArray[np.uint8]],
    sound: NDArray[np.float32],
    rate: int,
    number: int,
    now: float,
    slot: float,
    trouble: int | None,
) -> None:
    """One slot's frame and sound, with something wrong in it."""
    picture = pictures[number % len(pictures)]
    size = round(slot * rate)
    first = number * size % (len(sound) - size)
    samples = sound[first : first + size]
    if trouble == 0:
        picture = np.zeros_like(picture)
    elif trouble == 1:
        picture = np.ascontiguousarray(picture[:, : picture.shape[1] // 2])
    elif trouble == 2:
        samples = np.zeros_like(samples)
    elif trouble == 3:
        samples = np.where(np.arange(size) % 7 == 0, np.nan, samples).astype(np.float32)
    stream.push_frame(picture, now)
    if trouble == 4:
        return  # a gap
    if trouble == 5:
        half = size // 2
        stream.push_audio(samples[half:], rate, now + half / rate)
        stream.push_audio(samples[:half], rate, now)
    elif trouble == 6:
        stream.push_audio(resample(samples, rate, 44_100), 44_100, now)
    else:
        stream.push_audio(samples, rate, now)


def read_sample(slot: float) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32], int]:
    """A frame a slot (H, W, 3) RGB, and the sound (n,) with its rate."""
    pictures: list[NDArray[np.uint8]] = []
    pieces: list[NDArray[np.float32]] = []
    rate = 0
    with av.open(str(SAMPLE)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                if frame.time is not None and frame.time >= len(pictures) * slot:
                    image = frame.to_ndarray(format="rgb24")
                    scale = SIDE / max(image.shape[:2])
                    small = cv2.resize(
                        image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
                    )
                    pictures.append(np.asarray(small, np.uint8))
            elif isinstance(frame, av.AudioFrame):
                pieces.append(mix_down(frame))
                rate = frame.sample_rate
    return pictures, np.concatenate(pieces), rate


def resident() -> float:
    """MB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def report(
    options: argparse.Namespace,
    stream: StreamRecognizer,
    events: int,
    memory: list[float],
    seconds: float,
) -> dict[str, object]:
    """The figures so far; written to ``--out``."""
    figures: dict[str, object] = {
        "bundle": options.bundle,
        "threads": options.threads,
        "hops": events,
        "seconds": round(seconds, 1),
        "ms_per_hop": round(1000 * seconds / events, 2),
        "memory_mb": [round(m, 2) for m in memory],
        "growth_mb": round(memory[-1] - memory[0], 2) if memory else None,
        "growth_max_mb": round(max(memory) - memory[0], 2) if memory else None,
        "statistics": stream.statistics.to_dict(),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
