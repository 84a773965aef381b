"""The order of int8, once: equalise, round, range, correct; then write it in a dialect.

1. Cross-layer equalisation makes the channels of a tensor alike (``equalisation``).
2. GPTQ rounds weights so that errors cancel, and no sum can overflow (``gptq``).
3. Activations get ranges, on the graph whose weights are rounded (``observation``, ``observers``).
4. Bias correction takes back what rounding adds to the features (``bias_correction``).
5. What is left is measured (``noise``).

4 and 5 differ by dialect. ``calibrate_graphs`` finds all of it, ``Recipe`` writes graphs by it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx import ModelProto

from mer_calibration.graph.dialects import DIALECTS, Dialect, DialectName
from mer_calibration.graph.grid import Range
from mer_calibration.graph.placement import place
from mer_calibration.graph.quantisation import Quantised, quantise_graph
from mer_calibration.graph.saturation import Certificate
from mer_calibration.graph.weights import RoundedWeights, apply_roundings, replace_weights
from mer_calibration.graph.zero_point_folding import find_foldable
from mer_calibration.measure.bias_correction import correct_bias, measure_bias
from mer_calibration.measure.equalisation import equalise, find_exponents, measure_peaks
from mer_calibration.measure.gptq import find_roundings
from mer_calibration.measure.histogram import Histogram
from mer_calibration.measure.noise import FloatAnswers, Noise, Window
from mer_calibration.measure.observation import Feed, observe
from mer_calibration.measure.observers import find_range
from mer_calibration.ranges import DialectRanges, Ranges
from mer_calibration.report.layers import Layer, measure_layers

#: Of the two graphs, by name: crops to frame features, and MFCCs with features to logits.
ENCODER, HEAD = "encoder", "head"
#: Samples from which the peaks of channels are taken, ...
PEAK_SAMPLES = 32
#: ... on which weights are rounded, ...
ROUNDING_SAMPLES = 64
#: ... and on which layers are described.
LAYER_SAMPLES = 12

FloatGraphs = Mapping[str, ModelProto]
Step = Callable[[], None]


@dataclass(frozen=True)
class Feeds:
    """What the graphs are shown.

    Attributes:
        encoder, head: the samples of each graph, anew at each call.
        windows: whole clips on which answers are compared.
        pixel_means: average pixel of each colour, 0 to 255.
        samples, faces: how many samples the head, and the encoder, is given.
    """

    encoder: Callable[[], Iterable[Feed]]
    head: Callable[[], Iterable[Feed]]
    windows: Sequence[Window]
    pixel_means: tuple[float, ...]
    samples: int
    faces: int

    def of(self, graph: str) -> Iterable[Feed]:
        """The samples of one graph."""
        return self.encoder() if graph == ENCODER else self.head()


def count_steps(feeds: Feeds) -> int:
    """How often ``calibrate_graphs`` calls its ``step``."""
    windows = len(feeds.windows) * len(DIALECTS)
    rounded = min(ROUNDING_SAMPLES, feeds.samples) + min(ROUNDING_SAMPLES, feeds.faces)
    return rounded + feeds.samples + feeds.faces * (1 + len(DIALECTS)) + windows


def calibrate_graphs(
    graphs: FloatGraphs, feeds: Feeds, ranges: Ranges, step: Step = lambda: None
) -> Ranges:
    """Fill ``ranges``, which says what it is made from, with what is found on ``feeds``.

    Args:
        graphs: the float graphs, encoder and head.
        step: called ``count_steps`` times.

    Raises:
        CalibrationError: a value isn't finite, or a graph can't be run.
        SaturationError: a graph that could overflow came out, which is a fault here.
    """
    exponents, roundings, histograms = {}, {}, {}
    for name, model in graphs.items():
        few = itertools.islice(feeds.of(name), PEAK_SAMPLES)
        exponents[name] = find_exponents(model, measure_peaks(model, few))
        equal = equalise(model, exponents[name])
        some = itertools.islice(feeds.of(name), ROUNDING_SAMPLES)
        roundings[name] = find_roundings(equal, _count(some, step))
        rounded = replace_weights(equal, apply_roundings(equal, roundings[name]))
        sources = place(rounded).sources()
        histograms[name] = observe(rounded, _count(feeds.of(name), step), sources)
    ranges = dataclasses.replace(
        ranges, exponents=exponents, roundings=roundings, pixel_means=feeds.pixel_means
    )
    answers = FloatAnswers(graphs[ENCODER], graphs[HEAD], feeds.windows)
    for dialect in DIALECTS.values():
        tensors = {
            name: find_tensor_ranges(model, histograms[name], dialect)
            for name, model in graphs.items()
        }
        blank = DialectRanges(tensors, (), (), Noise(0.0, {}))
        ranges = ranges.replace(dialect.name, blank)
        found = measure_dialect(graphs, ranges, dialect.name, feeds, (), answers, step)
        ranges = ranges.replace(dialect.name, found)
    return ranges


def find_tensor_ranges(
    model: ModelProto, histograms: Mapping[str, Histogram], dialect: Dialect
) -> dict[str, Range]:
    """The range of every tensor on the grid that ``dialect`` has for it."""
    folded: Collection[str] = ()
    if dialect.fold_zero_points:
        folded = find_foldable(model, dialect.place(model))
    return {
        tensor: find_range(histogram, symmetric=dialect.symmetric and tensor not in folded)
        for tensor, histogram in histograms.items()
    }


def measure_dialect(
    graphs: FloatGraphs,
    ranges: Ranges,
    dialect: DialectName,
    feeds: Feeds,
    float_layers: Collection[str],
    answers: FloatAnswers | None = None,
    step: Step = lambda: None,
) -> DialectRanges:
    """The ranges of ``dialect`` with those layers in float: bias and noise measured anew.

    Raises:
        CalibrationError: the graphs can't be run on the samples.
    """
    known = dataclasses.replace(
        ranges.of(dialect), float_layers=tuple(float_layers), bias_correction=()
    )
    recipe = Recipe(graphs, ranges.replace(dialect, known))
    shown = _count(feeds.encoder(), step)
    correction = measure_bias(recipe.equal[ENCODER], recipe.write(dialect).encoder, shown)
    known = dataclasses.replace(known, bias_correction=correction)
    written = Recipe(graphs, ranges.replace(dialect, known)).write(dialect)
    answers = answers or FloatAnswers(graphs[ENCODER], graphs[HEAD], feeds.windows)
    noise = answers.measure(written.encoder, written.head, step)
    return dataclasses.replace(known, noise=noise)


@dataclass(frozen=True)
class Written:
    """Both graphs in a dialect; the certificate is of both."""

    encoder: ModelProto
    head: ModelProto
    certificate: Certificate


class Recipe:
    """Float graphs and what a calibration found on them: writes them in any of its dialects."""

    def __init__(self, graphs: FloatGraphs, ranges: Ranges) -> None:
        self.graphs, self.ranges = graphs, ranges

    @cached_property
    def equal(self) -> dict[str, ModelProto]:
        """The float graphs with channels made alike."""
        return {
            name: equalise(model, self.ranges.exponents[name])
            for name, model in self.graphs.items()
        }

    def write(self, dialect: DialectName) -> Written:
        """Both graphs in int8.

        Raises:
            CalibrationError: there are no ranges for ``dialect``, or they are of other graphs.
            DialectError, SaturationError: what came out isn't what the dialect's engine computes
                rightly on every processor.
        """
        encoder, head = (self._quantise(name, dialect) for name in (ENCODER, HEAD))
        correction = self.ranges.of(dialect).bias_correction
        corrected = correct_bias(encoder.model, correction) if correction else encoder.model
        return Written(corrected, head.model, encoder.certificate.join(head.certificate))

    def describe_layers(self, dialect: DialectName, feeds: Feeds) -> tuple[Layer, ...]:
        """The report per layer, with all of them in int8."""
        layers = []
        for name, model in self.equal.items():
            few = itertools.islice(feeds.of(name), LAYER_SAMPLES)
            weights, tensors = self._weights(name), self.ranges.of(dialect).tensors[name]
            layers += measure_layers(name, model, tensors, DIALECTS[dialect], weights, few)
        return tuple(layers)

    def _quantise(self, name: str, dialect: DialectName) -> Quantised:
        found = self.ranges.of(dialect)
        kept = found.float_layers
        weights = self._weights(name, kept)
        return quantise_graph(
            self.equal[name],
            found.tensors[name],
            DIALECTS[dialect],
            kept,
            self.ranges.pixel_means,
            weights,
        )

    def _weights(self, name: str, keep_float: Collection[str] = ()) -> RoundedWeights:
        return apply_roundings(self.equal[name], self.ranges.roundings[name], keep_float)


def _count(feeds: Iterable[Feed], step: Step) -> Iterator[Feed]:
    for feed in feeds:
        yield feed
        step()
