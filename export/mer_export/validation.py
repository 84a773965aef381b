"""The float model's and an engine's answers on the validation actors' clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mer import Checkpoint
from mer.cache import Cache
from mer.dataset import read_crops, read_targets
from mer.errors import CacheError
from mer.models import Standardiser
from mer.splits import Split
from mer_runtime.recognizer import Recognizer
from mer_runtime.spec import Spec

#: What is fed: both modalities, and each alone with the other one missing.
MODALITIES = ("both", "audio", "video")

Logits = dict[str, NDArray[np.float32]]
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


@torch.inference_mode()
def answer_float(
    checkpoint: Checkpoint, clips: ValidationSet, progress: Progress | None = None
) -> Logits:
    """The PyTorch network's logits (clips, classes), by modality."""
    model, spec = checkpoint.model, checkpoint.spec
    standardiser = Standardiser(spec)
    silence = standardiser.audio(torch.zeros(1, *spec.audio.shape))

    def encode(crops: NDArray[np.uint8]) -> torch.Tensor:
        return model.encode(standardiser.video(torch.from_numpy(crops)[None]))

    no_face = torch.from_numpy(encode_no_face(checkpoint)).expand(1, spec.video.frames, -1)
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in MODALITIES}
    for done, clip in enumerate(clips, start=1):
        voice = standardiser.audio(torch.from_numpy(clip.mfcc)[None])
        face = no_face if clip.crops is None else encode(clip.crops)
        fed = {"both": (voice, face), "audio": (voice, no_face), "video": (silence, face)}
        for name, (audio, features) in fed.items():
            rows[name].append(model.head(audio, features)[0].numpy())
        if progress:
            progress(done, len(clips))
    return _stack(rows)


@torch.inference_mode()
def encode_no_face(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """The PyTorch network's features (F,) of a black crop, which stands for a missing face."""
    black = torch.zeros(1, 1, *checkpoint.spec.video.shape[1:], dtype=torch.uint8)
    features = checkpoint.model.encode(Standardiser(checkpoint.spec).video(black))
    return np.asarray(features[0, 0].numpy(), np.float32)


def answer_engine(
    recognizer: Recognizer, clips: ValidationSet, progress: Progress | None = None
) -> Logits:
    """A bundle's logits (clips, classes), by modality; one window at a time, as on a device."""
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in MODALITIES}
    silence = np.zeros(clips.spec.audio.shape, np.float32)
    for done, clip in enumerate(clips, start=1):
        features = None if clip.crops is None else recognizer.encode(clip.crops)
        rows["both"].append(recognizer.classify(clip.mfcc, features))
        rows["audio"].append(recognizer.classify(clip.mfcc, None))
        rows["video"].append(recognizer.classify(silence, features))
        if progress:
            progress(done, len(clips))
    return _stack(rows)


def _stack(rows: Mapping[str, list[NDArray[np.float32]]]) -> Logits:
    return {name: np.stack(logits) for name, logits in rows.items()}
