"""A calibration on a corpus: which clips the recipe is shown, and what it found on them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mer import Checkpoint
from mer.data.cache import Cache
from mer_calibration import Layer, Ranges
from mer_calibration.graph.dialects import DialectName
from mer_calibration.recipe import Recipe, calibrate_graphs, count_steps, measure_dialect
from mer_export.feeds import (
    CLIPS,
    CalibrationInputs,
    Sample,
    choose_samples,
    hash_preprocessing,
    hash_samples,
)
from mer_export.network.graphs import Graphs

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Calibration:
    """What was found, and the report per layer; ``samples`` are what it comes from."""

    ranges: Ranges
    layers: tuple[Layer, ...]
    samples: tuple[Sample, ...]


def calibrate(
    checkpoint: Checkpoint,
    graphs: Graphs,
    cache: Cache,
    *,
    dialect: DialectName = "x86",
    clips: int = CLIPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrate on training actors' clips, for all dialects at once.

    Args:
        graphs: the float graphs of ``checkpoint``.
        dialect: the one whose layers are described.
        clips: how many to take, as evenly among the classes as the corpus allows.
        seed: draws them.
        progress: called with (steps done, steps in all).

    Raises:
        CacheError: the cache was prepared otherwise than the model needs.
        CalibrationError: too few clips, a value that isn't finite, or a graph that can't be run.
    """
    spec = checkpoint.spec
    cache.require(spec)
    samples = choose_samples(cache, spec, clips=clips, seed=seed)
    logger.info("calibrating on %d clips of %s, seed %d", len(samples), cache.path, seed)
    feeds = CalibrationInputs(cache, spec, samples, graphs).feeds()
    steps = _Steps(count_steps(feeds) + 1, progress)
    blank = Ranges(
        graphs=graphs.hashes(),
        spec=hash_preprocessing(spec),
        exponents={},
        roundings={},
        pixel_means=(),
        dialects={},
        clips=len(samples),
        clips_sha256=hash_samples(samples),
        corpus=cache.digest,
    )
    floats = dict(graphs.items())
    ranges = calibrate_graphs(floats, feeds, blank, steps.advance)
    layers = Recipe(floats, ranges).describe_layers(dialect, feeds)
    steps.finish()
    return Calibration(ranges, layers, samples)


def keep_float(
    checkpoint: Checkpoint,
    graphs: Graphs,
    cache: Cache,
    calibration: Calibration,
    dialect: DialectName,
    float_layers: tuple[str, ...],
    progress: Progress | None = None,
) -> Ranges:
    """The ranges with those layers of ``dialect`` in float: what is left is measured anew.

    Raises:
        CalibrationError: the graphs can't be run on the samples.
    """
    inputs = CalibrationInputs(cache, checkpoint.spec, calibration.samples, graphs)
    feeds = inputs.feeds()
    steps = _Steps(feeds.faces + len(feeds.windows), progress)
    found = measure_dialect(
        dict(graphs.items()), calibration.ranges, dialect, feeds, float_layers, step=steps.advance
    )
    return calibration.ranges.replace(dialect, found)


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def advance(self) -> None:
        self.done = min(self.done + 1, self.total)
        if self.progress:
            self.progress(self.done, self.total)

    def finish(self) -> None:
        self.done = self.total - 1
        self.advance()
