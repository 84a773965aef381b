"""A checkpoint, with what all bundles of it are made from and compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer import load_checkpoint
from mer.data.cache import Cache
from mer.evaluate.classifier import NetworkClassifier
from mer.weights import find_checkpoint
from mer_export.network.graphs import Graphs, export_graphs
from mer_export.proof.golden import golden_reference
from mer_export.proof.proof import Evidence
from mer_export.proof.validation import Logits, ValidationSet, answer_float
from mer_runtime.golden import Golden
from mer_runtime.spec import Spec

Progress = Callable[[str, int, int], None]


class Origin:
    """Loads a checkpoint; its graphs and the float model's answers are made once, when asked for.

    Args:
        checkpoint, labels, num_heads, spec, calibration: as for ``export_bundle``.
        show: called with (stage, steps done, steps in all).

    Raises:
        CheckpointError: it can't be loaded.
        CacheError, CorpusError: the cache can't be read, doesn't suit the model, or lacks actors.
    """

    def __init__(
        self,
        checkpoint: str | Path | None,
        calibration: str | Path | None = None,
        *,
        num_heads: int | None = None,
        labels: tuple[str, ...] | None = None,
        spec: Spec | None = None,
        show: Progress = lambda stage, done, total: None,
    ) -> None:
        self.path = find_checkpoint(checkpoint)
        self.checkpoint = load_checkpoint(self.path, num_heads=num_heads, labels=labels, spec=spec)
        self.clips: ValidationSet | None = None
        if calibration is not None:
            cache = Cache.open(calibration)
            notes = self.checkpoint.notes
            fold = notes.get("fold")
            if notes.get("corpus") == cache.digest and isinstance(fold, int):
                cache.fold = fold  # the default split's validation actors may have taught it
            self.clips = ValidationSet(cache, self.checkpoint.spec)
        self.show = show

    @cached_property
    def floats(self) -> Graphs:
        """The float graphs.

        Raises:
            ExportError: PyTorch can't export the network.
        """
        self.show("graphs", 0, 1)
        made = export_graphs(self.checkpoint)
        self.show("graphs", 1, 1)
        return made

    @cached_property
    def no_face(self) -> NDArray[np.float32]:
        """Features (F,) of a black crop."""
        return NetworkClassifier(self.checkpoint).no_face

    def evidence(self, max_drop: float) -> Evidence:
        """What a bundle is compared with; ``max_drop`` points of prec1 may be lost."""
        return Evidence(
            self._golden, self.clips, self._reference, max_drop, self.checkpoint.temperatures
        )

    @cached_property
    def _golden(self) -> Golden:
        return golden_reference(self.checkpoint)

    @cached_property
    def _reference(self) -> Logits | None:
        if self.clips is None:
            return None
        return answer_float(
            self.checkpoint, self.clips, lambda done, n: self.show("reference", done, n)
        )
