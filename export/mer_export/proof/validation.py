"""The float model's and an engine's answers on the validation actors' clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer import Checkpoint
from mer.data.cache import Cache
from mer.data.dataset import read_crops, read_targets
from mer.data.splits import Split
from mer.errors import CacheError
from mer.evaluate.classifier import Classifier, NetworkClassifier
from mer_runtime.feeds import MODALITIES, Modality
from mer_runtime.spec import Spec

#: By what is fed: both modalities, and each alone with the other one missing.
Logits = dict[Modality, NDArray[np.float32]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Clip:
    """One window of the cache: raw MFCCs (n_mfcc, T), and crops (frames, S, S, 3) if it has any."""

    mfcc: NDArray[np.float32]
    crops: NDArray[np.uint8] | None


class ValidationSet:
    """The validation actors' clips in a cache, or those of another ``split``.

    Raises:
        CacheError: the cache was prepared otherwise than the model needs.
        CorpusError: none of its actors is in the split.
    """

    def __init__(self, cache: Cache, spec: Spec, split: Split = "validation") -> None:
        cache.require(spec)
        self.cache, self.spec = cache, spec
        self.rows = cache.select(split)
        self.targets: NDArray[np.int64] = read_targets(cache, self.rows, spec)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Clip]:
        """The clips, in order.

        Raises:
            CacheError: a clip's MFCCs aren't finite.
        """
        for row in self.rows:
            mfcc = self.cache.mfcc(row, self.spec.audio)
            if not np.isfinite(mfcc).all():
                raise CacheError(
                    f"the voice of clip {self.cache.rows[row].id} gives MFCCs that are not "
                    "finite: delete its file from the cache and run mer-prepare again"
                )
            shown = self.cache.rows[row].has_face
            yield Clip(mfcc, read_crops(self.cache, row, self.spec) if shown else None)


def answer_float(
    checkpoint: Checkpoint, clips: ValidationSet, progress: Progress | None = None
) -> Logits:
    """The PyTorch network's logits (clips, classes), by modality."""
    return answer_engine(NetworkClassifier(checkpoint), clips, progress)


def answer_engine(
    classifier: Classifier, clips: ValidationSet, progress: Progress | None = None
) -> Logits:
    """A bundle's logits (clips, classes), by modality; one window at a time, as on a device."""
    rows: dict[Modality, list[NDArray[np.float32]]] = {name: [] for name in MODALITIES}
    silence = np.zeros(clips.spec.audio.shape, np.float32)
    for done, clip in enumerate(clips, start=1):
        features = None if clip.crops is None else classifier.encode(clip.crops)
        rows["both"].append(classifier.classify(clip.mfcc, features))
        rows["audio"].append(classifier.classify(clip.mfcc, None))
        rows["video"].append(classifier.classify(silence, features))
        if progress:
            progress(done, len(clips))
    return {name: np.stack(logits) for name, logits in rows.items()}
