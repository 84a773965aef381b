"""Frame features of a frozen encoder: computed once for each clip and view, kept in the cache."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mer.data.augmentation import Example, FaceView
from mer.data.cache import Cache
from mer.data.dataset import LiveFaces
from mer.data.index import clip_path, prepared_fields
from mer.data.spoiling import CROP_KINDS
from mer.models import MultimodalNet
from mer.protocols import Protocol, SoftHard
from mer_runtime.files import make_folder, replacing
from mer_runtime.spec import Spec

logger = logging.getLogger(__name__)

#: Views that are kept instead of every angle and light: a third of the angles from -10 to 10
#: lies nearest to each of the angles, and each is about its third's mean.
ANGLES = (-7, 0, 7)
LIGHTS = (0.25, 0.5, 0.75, 1.0)
#: Clips encoded at once.
BATCH_CLIPS = 4


class FrozenFaces:
    """Frame features from disk; an example gets those of the nearest view that is kept.

    A dimmed or spoilt clip is not rotated, which keeps the views few.
    """

    def __init__(self, cache: Cache, spec: Spec, model: MultimodalNet, device: str) -> None:
        self.cache, self.device = cache, device
        self.folder = cache.path / name_features(cache, spec, model)
        self._live = LiveFaces(cache, spec, model, device)
        self._kept: dict[tuple[FaceView, str], NDArray[np.float32]] = {}
        self._places = _place_rows(cache)
        self._black: Tensor | None = None

    def prepare(
        self,
        wanted: Iterable[tuple[Sequence[int], Sequence[FaceView]]],
        step: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compute what is missing.

        Args:
            wanted: rows and the views of them; all rows of their groups are computed: an actor's,
                or where nobody knows who speaks, a split's.
            step: called with (clips done, clips in all).

        Raises:
            OutputError: the cache's folder can't be written.
        """
        files = {
            (view, self._group(row)): None
            for rows, views in wanted
            for view in views
            for row in rows
        }
        missing = [(view, group) for view, group in files if not self._is_fresh(view, group)]
        total = sum(len(self._rows(group)) for _, group in missing)
        there = len(files) - len(missing)
        logger.info("%d of %d feature files are in %s", there, len(files), self.folder)
        done = 0
        for view, group in missing:
            parts = []
            for some in _batches(self._rows(group), BATCH_CLIPS):
                parts.append(self._encode([Example(row, face=view) for row in some]))
                done += len(some)
                if step:
                    step(done, total)
            _write(self._path(view, group), np.concatenate(parts))

    def features(self, examples: Sequence[Example]) -> Tensor:
        """(B, 15, F) float32; ``prepare`` must have been called for the rows and views."""
        return torch.stack([self._one(e.row, find_view(e.face)) for e in examples])

    def _one(self, row: int, view: FaceView) -> Tensor:
        if view.light == 0:
            return self._missing_face()
        group, place = self._places[row]
        key = view, group
        if key not in self._kept:
            self._kept[key] = np.load(self._path(view, group))
        return torch.from_numpy(self._kept[key][place]).to(self.device)

    def _missing_face(self) -> Tensor:
        if self._black is None:
            black = Example(0, face=FaceView(light=0.0))
            self._black = torch.from_numpy(self._encode([black])[0]).to(self.device)
        return self._black

    @torch.no_grad()
    def _encode(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        model = self._live.model
        training = [part for part in model.modules() if part.training]
        model.eval()
        # What is kept must not depend on the precision of the step that asked for it.
        with torch.autocast(torch.device(self.device).type, enabled=False):
            features = self._live.features(examples).cpu().numpy()
        for part in training:  # not all: a branch may be meant to stay as it is
            part.training = True
        return features

    def _group(self, row: int) -> str:
        return self._places[row][0]

    def _rows(self, group: str) -> list[int]:
        return [i for i, (own, _) in enumerate(self._places) if own == group]

    def _is_fresh(self, view: FaceView, group: str) -> bool:
        """Whether the features are there and no clip of the group was prepared again since."""
        path = self._path(view, group)
        if not path.exists():
            return False
        clips = (clip_path(self.cache.path, self.cache.rows[i].id) for i in self._rows(group))
        return path.stat().st_mtime >= max(clip.stat().st_mtime for clip in clips)

    def _path(self, view: FaceView, group: str) -> Path:
        name = f"{'flip' if view.flip else 'plain'}{view.angle:+d}-light{round(100 * view.light)}"
        if view.fault:
            name += f"-{view.fault}"
        return self.folder / name / f"{group}.npy"


def find_view(view: FaceView) -> FaceView:
    """The kept view nearest to ``view``; a missing face (light 0) stays one."""
    if view.light == 0:
        return FaceView(light=0.0)
    light = min(LIGHTS, key=lambda kept: abs(kept - view.light))
    if view.fault:
        return FaceView(view.flip, fault=view.fault)
    if light != 1:
        return FaceView(view.flip, 0, light)
    return FaceView(view.flip, min(ANGLES, key=lambda kept: abs(kept - view.angle)))


def list_views(protocol: Protocol) -> list[FaceView]:
    """All kept views that ``protocol`` can ask for, the plain one first."""
    flips = (False, True) if protocol.face.flip > 0 else (False,)
    angles = range(-protocol.face.max_angle, protocol.face.max_angle + 1)
    lights = LIGHTS if isinstance(protocol.missing, SoftHard) else (1.0,)
    drawn = (FaceView(f, a, light) for f in flips for light in lights for a in angles)
    faults = CROP_KINDS if protocol.face.spoilt else ()
    spoilt = (FaceView(f, fault=kind) for f in flips for kind in faults)
    return list(dict.fromkeys([FaceView(), *map(find_view, drawn), *spoilt]))


def name_features(cache: Cache, spec: Spec, model: MultimodalNet) -> str:
    """Folder name that changes with the crops, the encoder's weights and their standardisation."""
    video = spec.video
    digest = hashlib.sha256(hash_encoder(model).encode())
    inputs = (cache.digest, cache.detector["sha256"], prepared_fields(spec))
    digest.update(repr((*inputs, video.scale, video.mean, video.std, video.colour)).encode())
    return f"features-{digest.hexdigest()[:16]}"


def hash_encoder(model: MultimodalNet) -> str:
    """sha256 over the encoder's weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.visual_model.encoder_weights().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _place_rows(cache: Cache) -> list[tuple[str, int]]:
    """(group, place among that group's rows) of every row: its actor's, else its split's."""
    counts: Counter[str] = Counter()
    places = []
    for row in cache.rows:
        group = f"actor-{row.actor:02d}" if row.actor else f"split-{row.split}"
        places.append((group, counts[group]))
        counts[group] += 1
    return places


def _batches(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _write(path: Path, features: NDArray[np.float32]) -> None:
    make_folder(path.parent)
    with replacing(path) as part:
        np.save(part, features)
