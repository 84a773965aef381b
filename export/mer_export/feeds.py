"""The calibration set: which clips of a corpus are shown to the graphs, and what of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer.data.cache import Cache
from mer.data.dataset import read_crops, read_targets
from mer_calibration import CalibrationError
from mer_calibration.measure.noise import Window
from mer_calibration.measure.observation import open_session
from mer_calibration.recipe import Feeds
from mer_export.network.graphs import Graphs
from mer_runtime.spec import Spec

#: Clips that are taken, and the fewest that will do.
CLIPS, FEWEST_CLIPS = 128, 16
#: Of ten clips, one has no face and one no voice: a device meets both.
EVERY, WITHOUT_FACE, WITHOUT_VOICE = 10, 3, 7
#: Crops of a clip that are observed: its frames look alike.
OBSERVED_CROPS = 3
#: Clips on which answers are compared, whole and with each modality alone.
COMPARED_WINDOWS = 64


@dataclass(frozen=True)
class Sample:
    """A clip of the calibration set; a modality that isn't there is fed as missing."""

    row: int
    id: str
    face: bool = True
    voice: bool = True


def choose_samples(
    cache: Cache, spec: Spec, *, clips: int = CLIPS, seed: int = 0
) -> tuple[Sample, ...]:
    """Training actors' clips, in turn from each class, some with one modality alone.

    Raises:
        CalibrationError: there are fewer than ``FEWEST_CLIPS``.
    """
    rows = cache.select("train")
    targets = read_targets(cache, rows, spec)
    generator = np.random.default_rng(seed)
    queues = [
        list(generator.permutation([r for r, t in zip(rows, targets, strict=True) if t == c]))
        for c in range(len(spec.labels))
    ]
    drawn: list[int] = []
    while len(drawn) < clips and any(queues):
        drawn += [int(queue.pop()) for queue in queues if queue]
    drawn = drawn[:clips]
    if len(drawn) < FEWEST_CLIPS:
        raise CalibrationError(
            f"{cache.path} has {len(drawn)} clips of training actors, too few to calibrate on: "
            f"at least {FEWEST_CLIPS} are needed"
        )
    return tuple(_take(cache, row, i % EVERY) for i, row in enumerate(drawn))


def _take(cache: Cache, row: int, turn: int) -> Sample:
    """A clip with what it has, but for the modality whose turn it is to be left out."""
    told = cache.rows[row]
    # The only one that a clip has stays: a window of nothing says nothing.
    face = told.has_face and not (turn == WITHOUT_FACE and told.has_voice)
    voice = told.has_voice and not (turn == WITHOUT_VOICE and told.has_face)
    return Sample(row=row, id=told.id, face=face, voice=voice)


def hash_samples(samples: Sequence[Sample]) -> str:
    """sha256 over the list of clips and the modalities taken from each, one a line."""
    lines = (f"{s.id} {'f' if s.face else '-'}{'v' if s.voice else '-'}\n" for s in samples)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_preprocessing(spec: Spec) -> str:
    """sha256 over what decides the graphs' inputs: audio and video, not labels or fusion."""
    content = spec.to_dict()
    text = json.dumps({"audio": content["audio"], "video": content["video"]}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class CalibrationInputs:
    """The samples of a cache as feeds of either graph, and as windows for both.

    Args:
        graphs: the float graphs; the encoder makes the features that the head is shown.
    """

    def __init__(self, cache: Cache, spec: Spec, samples: Sequence[Sample], graphs: Graphs) -> None:
        self.cache, self.spec, self.samples, self.graphs = cache, spec, samples, graphs

    def feeds(self) -> Feeds:
        """All of it."""
        return Feeds(
            encoder=self.crops,
            head=self.head,
            windows=self.windows(),
            pixel_means=self.pixel_means(),
            samples=len(self.samples),
            faces=sum(sample.face for sample in self.samples),
        )

    def pixel_means(self) -> tuple[float, ...]:
        """Each colour's average."""
        means = [feed["faces"].mean(axis=(0, 1, 2)) for feed in self.crops()]
        return tuple(round(float(mean), 3) for mean in np.mean(means, axis=0))

    def crops(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Inputs of the encoder, a sample that shows a face after the other."""
        frames = self.spec.video.frames
        count = min(OBSERVED_CROPS, frames)
        shown = np.linspace(0, frames - 1, count).round().astype(np.int64)
        # Where the face is missing a device runs no encoder.
        for sample in self.samples:
            if sample.face:
                yield {"faces": np.ascontiguousarray(self._crops(sample)[shown])}

    def head(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Inputs of the head, a sample after the other."""
        for sample, features in zip(self.samples, self._features, strict=True):
            yield {"mfcc": self._mfcc(sample)[None], "features": features[None]}

    def windows(self) -> list[Window]:
        """The first clips, whole."""
        return [
            Window(
                self._mfcc(sample) if sample.voice else None,
                self._crops(sample) if sample.face else None,
            )
            for sample in self.samples[:COMPARED_WINDOWS]
        ]

    @cached_property
    def _features(self) -> list[NDArray[np.float32]]:
        """Of each sample (frames, F)."""
        session = open_session(self.graphs.encoder)
        return [session.run(None, {"faces": self._crops(one)})[0] for one in self.samples]

    def _crops(self, sample: Sample) -> NDArray[np.uint8]:
        if not sample.face:
            return np.zeros(self.spec.video.shape, np.uint8)
        return np.ascontiguousarray(read_crops(self.cache, sample.row, self.spec))

    def _mfcc(self, sample: Sample) -> NDArray[np.float32]:
        if not sample.voice:
            return np.zeros(self.spec.audio.shape, np.float32)
        mfcc = self.cache.mfcc(sample.row, self.spec.audio)
        if not np.isfinite(mfcc).all():
            raise CalibrationError(
                f"the voice of clip {sample.id} gives MFCCs that are not finite: delete its file "
                "from the cache and run mer-prepare again"
            )
        return mfcc
