"""Compare faces followed between detections with detection in every frame; write the table.

    python scripts/measure_following.py ravdess cache/ravdess

answers the test actors' recordings with an int8 bundle both ways, in turns, and writes
docs/following.json and the table made of it. The CPU time is this process's, with one thread.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from make_tables import write_all_tables
from mer.data.cache import Cache
from mer.data.corpus import find_recordings
from mer.errors import CorpusError
from mer_bench.run import choose_clip
from mer_runtime.console import Command, progress
from mer_runtime.files import write_file
from mer_runtime.inputs.clip import read_clip
from mer_runtime.inputs.face import Box, FaceDetector, YuNetDetector, load_detector
from mer_runtime.inputs.face_search import FaceSearch
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.window_faces import EVERY
from mer_runtime.recognizer import Recognizer
from mer_runtime.spec import Detector, Spec

DATA = Path(__file__).resolve().parents[1] / "docs" / "following.json"


#: Of ``--detect-size``.
SIZES = (320, 640, 1280)
#: Looks whose median is taken.
LOOKS = 15


class CountingDetector:
    """A detector that counts the frames it looked at."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.frames = 0

    @property
    def name(self) -> Detector:
        return self.detector.name

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        """The largest face of an RGB frame (H, W, 3), or None."""
        return next(iter(self.detect_all(frame)), None)

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        """All faces, in the detector's own order."""
        self.frames += 1
        return self.detector.detect_all(frame)


@dataclass(frozen=True)
class Answer:
    """A clip answered one way: logits (classes,), frames looked at, faces found, CPU ms."""

    logits: NDArray[np.float32]
    looked: int
    found: int
    milliseconds: float


class Way:
    """The device's way to an answer, with a detection in every ``every``-th used frame."""

    def __init__(self, recognizer: Recognizer, every: int) -> None:
        self.recognizer = recognizer
        self.detector = CountingDetector(load_detector())
        self.search = FaceSearch(lambda: self.detector, threads=1, every=every)

    def answer(self, clip: Path) -> Answer:
        """Decode, find the face, compute MFCCs and infer."""
        self.detector.frames = 0
        began = time.process_time()
        reading = read_clip(clip, self.recognizer.spec, self.search)
        crops = reading.faces.crops if reading.faces else None
        logits = self.recognizer.infer(reading.mfcc, crops)
        spent = 1e3 * (time.process_time() - began)
        found = int(reading.faces.found.sum()) if reading.faces else 0
        return Answer(logits, self.detector.frames, found, spent)


@click.command(cls=Command)
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--bundle", default="ia-int8", show_default=True)
def main(corpus: Path, cache: Path, bundle: str) -> None:
    """Answer CORPUS's test clips both ways and rewrite docs/following.json.

    CACHE (see mer-prepare) says which clips test.
    """
    cv2.setNumThreads(1)
    opened = Cache.open(cache)
    rows = [opened.rows[row] for row in opened.select("test")]
    paths = {one.id: one.path for one in find_recordings(corpus)}
    missing = [row.id for row in rows if row.id not in paths]
    if missing:
        raise CorpusError(f"{corpus} lacks {len(missing)} clips of {cache}, such as {missing[0]}")
    recognizer = Recognizer.load(bundle, threads=1)
    ways = [Way(recognizer, 1), Way(recognizer, EVERY)]
    with progress([paths[row.id] for row in rows], label="Following") as bar:
        pairs = [tuple(way.answer(path) for way in ways) for path in bar]
    targets = [row.emotion for row in rows]
    data = {
        "corpus": opened.digest,
        "bundle": bundle,
        **describe(pairs, targets),
        "sizes": [measure_size(size) for size in SIZES],
    }
    write_file(DATA, (json.dumps(data, indent=1) + "\n").encode())
    write_all_tables()


def describe(pairs: Sequence[tuple[Answer, ...]], targets: Sequence[int]) -> dict[str, Any]:
    """How alike the two ways' answers are, and what each takes."""
    same = sum(int(one.logits.argmax()) == int(other.logits.argmax()) for one, other in pairs)
    gaps = [float(np.abs(one.logits - other.logits).max()) for one, other in pairs]
    rows = []
    for every, answers in zip((1, EVERY), zip(*pairs, strict=True), strict=True):
        right = sum(int(a.logits.argmax()) == t for a, t in zip(answers, targets, strict=True))
        rows.append(
            {
                "every": every,
                "prec1": round(100 * right / len(targets), 2),
                "looked": round(statistics.mean(a.looked for a in answers), 2),
                "found": round(statistics.mean(a.found for a in answers), 2),
                "cpu_ms": round(statistics.median(a.milliseconds for a in answers), 1),
            }
        )
    return {
        "n": len(pairs),
        "same": same,
        "median_difference": round(statistics.median(gaps), 4),
        "largest_difference": round(max(gaps), 4),
        "rows": rows,
    }


def measure_size(size: int) -> dict[str, Any]:
    """The smallest face that ``--detect-size`` finds in 1080p, and what a frame costs."""
    detector = YuNetDetector(size=size)
    window = read_window(choose_clip(None), Spec())
    assert window.frames is not None
    picture = window.frames[0]
    box = YuNetDetector().detect(picture)
    assert box is not None
    found = []
    for pixels in range(160, 8, -4):
        frame = draw_far(picture, pixels / box.width)
        if detector.detect(frame) is not None:
            found.append(pixels)
    near, faceless = draw_far(picture, 300 / box.width), draw_far(picture, 0)
    return {
        "size": size,
        "smallest": min(found),
        "near_ms": time_look(detector, near),
        "faceless_ms": time_look(detector, faceless),
    }


def draw_far(picture: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """1080p with a picture in its middle at ``scale``, or none, on the picture's own grey."""
    frame = np.full((1080, 1920, 3), int(picture.mean()), np.uint8)
    if scale > 0:
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        small = small[:1080, :1920]
        top, left = (1080 - small.shape[0]) // 2, (1920 - small.shape[1]) // 2
        frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame


def time_look(detector: FaceDetector, frame: NDArray[np.uint8]) -> float:
    """Median CPU milliseconds of a look at a frame."""
    spent = []
    for _ in range(LOOKS):
        began = time.process_time()
        detector.detect_all(frame)
        spent.append(1e3 * (time.process_time() - began))
    return round(statistics.median(spent), 1)


if __name__ == "__main__":
    main()
