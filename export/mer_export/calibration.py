"""A calibration on a corpus: what the graphs do on its clips, and the ranges chosen."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from mer import Checkpoint
from mer.cache import Cache
from mer_calibration import Layer, Method, Ranges, compare_tensors, observe
from mer_calibration.dialects import DIALECTS, Dialect, DialectName
from mer_calibration.equalisation import equalise, find_exponents, measure_peaks
from mer_calibration.observation import Feed
from mer_calibration.placement import place
from mer_calibration.quantisation import quantise_graph
from mer_calibration.rounding import find_roundings, round_weights
from mer_calibration.sensitivity import (
    apply_method,
    choose_ranges,
    count_choices,
    measure_sensitivity,
)
from mer_calibration.shift import measure_shift
from mer_calibration.trial import Trial, Window
from mer_export.calibration_set import (
    CLIPS,
    TRIAL_WINDOWS,
    CalibrationInputs,
    Sample,
    choose_samples,
    hash_preprocessing,
    hash_samples,
)
from mer_export.graphs import Graphs
from mer_runtime.bundle import ENCODER

#: Clips from which the peaks of channels are taken.
PEAK_CLIPS = 32
#: Clips on which weights are rounded.
ROUNDING_CLIPS = 64
#: Crops of each by which layers are told apart. Ranges are chosen on whole windows: what cutting
#: values off costs is alike in all crops, what rounding costs is mostly gone from their average.
TRIAL_CROPS = 3
#: What methods are tried with; the ranges chosen serve every dialect but one ...
TRIED: DialectName = "x86"
#: ... where some tensors have half the steps of the others' grids, so that narrower ranges are
#: better. They are found by one method: where trials on training actors led to others, the error
#: on validation actors grew by a third.
OWN_GRIDS: DialectName = "portable"
OWN_METHOD: Method = "wide"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Calibration:
    """Ranges, and the report per layer; ``samples`` are what they come from."""

    ranges: Ranges
    layers: tuple[Layer, ...]
    samples: tuple[Sample, ...]


def calibrate(
    checkpoint: Checkpoint,
    graphs: Graphs,
    cache: Cache,
    *,
    dialect: DialectName = TRIED,
    clips: int = CLIPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Choose ranges on training actors' clips and measure what each layer costs.

    Args:
        graphs: the float graphs of ``checkpoint``.
        dialect: what the ranges are for; all can be written with them.
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
    placements = {name: place(model) for name, model in graphs.items()}
    layers = sum(len(placement.layers) for placement in placements.values())
    rounding = samples[:ROUNDING_CLIPS]
    observed = len(samples) + sum(sample.face for sample in samples)
    own = dialect == OWN_GRIDS
    choices = 0 if own else count_choices()
    total = observed + 2 * len(rounding) + choices + _count_shown(samples) + layers + 1
    steps = _Steps(total, progress)
    inputs = CalibrationInputs(cache, spec, samples)
    exponents, roundings = {}, {}
    equal, rounded = {}, {}
    for name, model in graphs.items():
        feeds = itertools.islice(inputs.feeds(name, graphs), PEAK_CLIPS)
        exponents[name] = find_exponents(model, measure_peaks(model, feeds))
        equal[name] = equalise(model, exponents[name])
        feeds = itertools.islice(inputs.feeds(name, graphs), len(rounding))
        roundings[name] = find_roundings(equal[name], steps.count(feeds))
        rounded[name] = round_weights(equal[name], roundings[name])
    floats, graphs = graphs, Graphs(**equal)
    candidates = Graphs(**rounded)
    pixel_means = inputs.pixel_means()
    histograms = {
        name: observe(
            model,
            inputs.feeds(name, graphs),
            placements[name].sources(),
            progress=lambda _: steps.advance(),
        )
        for name, model in candidates.items()
    }

    def make_trial(windows: Sequence[Window]) -> Trial:
        return Trial(
            graphs.encoder,
            graphs.head,
            windows,
            rounded=(candidates.encoder, candidates.head),
            pixel_means=pixel_means,
        )

    choice = DIALECTS[OWN_GRIDS if own else TRIED]
    if own:
        chosen = apply_method(dict(candidates.items()), histograms, OWN_METHOD, choice)
    else:
        trial = make_trial(inputs.windows(spec.video.frames))
        chosen = choose_ranges(trial, histograms, choice, step=steps.advance)
    ranges = Ranges(
        graphs=floats.hashes(),
        spec=hash_preprocessing(spec),
        tensors=chosen,
        exponents=exponents,
        roundings=roundings,
        pixel_means=pixel_means,
        shifts={},
        clips=len(samples),
        clips_sha256=hash_samples(samples),
        corpus=cache.digest,
    )
    shifts = measure_shifts(floats.encoder, ranges, inputs, lambda *_: steps.advance())
    ranges = dataclasses.replace(ranges, shifts=shifts)
    report = _report_layers(graphs, candidates, ranges, choice, make_trial, inputs, steps)
    steps.finish()
    return Calibration(ranges, report, samples)


def measure_shifts(
    encoder: ModelProto,
    ranges: Ranges,
    inputs: CalibrationInputs,
    progress: Progress | None = None,
) -> dict[str, tuple[float, ...]]:
    """What to add to the features of ``encoder``'s integers, in each dialect.

    Args:
        encoder: the float graph.
        ranges: of it, with the layers that are in float; their own shifts aren't read.
        inputs: what the ranges were made on.
        progress: called with (steps done, steps in all).

    Raises:
        CalibrationError: the graphs can't be run on the samples.
    """
    steps = _Steps(_count_shown(inputs.samples), progress)
    equal = equalise(encoder, ranges.exponents[ENCODER])
    rounded = round_weights(equal, ranges.roundings[ENCODER], ranges.float_layers)
    tensors, kept = ranges.tensors[ENCODER], ranges.float_layers
    return {
        name: measure_shift(
            equal,
            quantise_graph(rounded, tensors, dialect, kept, ranges.pixel_means).model,
            steps.count(inputs.crops()),
        )
        for name, dialect in DIALECTS.items()
    }


def _count_shown(samples: Sequence[Sample]) -> int:
    """How often ``measure_shifts`` shows a sample to a graph."""
    return len(DIALECTS) * sum(sample.face for sample in samples)


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def advance(self) -> None:
        self.done = min(self.done + 1, self.total)
        if self.progress:
            self.progress(self.done, self.total)

    def count(self, feeds: Iterable[Feed]) -> Iterator[Feed]:
        """The same, each a step."""
        for feed in feeds:
            yield feed
            self.advance()

    def finish(self) -> None:
        self.done = self.total - 1
        self.advance()


def _report_layers(
    graphs: Graphs,
    candidates: Graphs,
    ranges: Ranges,
    choice: Dialect,
    make_trial: Callable[[Sequence[Window]], Trial],
    inputs: CalibrationInputs,
    steps: _Steps,
) -> tuple[Layer, ...]:
    trial = make_trial(inputs.each_alone(TRIAL_CROPS))
    shares = measure_sensitivity(trial, ranges.tensors, choice, step=steps.advance)
    share_of = {(key.graph, key.layer): share for key, share in shares.items()}
    # Every layer's output rounded, and there dequantised.
    dialect = dataclasses.replace(choice, integer_moves=False, float_outputs=False)
    report = []
    for (name, model), (_, candidate) in zip(graphs.items(), candidates.items(), strict=True):
        tensors = ranges.tensors[name]
        quantised = quantise_graph(candidate, tensors, dialect, (), ranges.pixel_means, fold=False)
        few = itertools.islice(inputs.feeds(name, graphs), TRIAL_WINDOWS)
        noise = compare_tensors(model, quantised.model, quantised.rounded, few)
        for layer in quantised.placement.layers:
            found, share = tensors[layer.output], share_of[name, layer.name]
            report.append(
                Layer(
                    graph=name,
                    name=layer.name,
                    op_type=layer.op_type,
                    tensor=layer.output,
                    low=found.low,
                    high=found.high,
                    method=found.method,
                    clipped=found.clipped,
                    sqnr=noise[layer.output],
                    error_share=share.total,
                    shares=share.by_shown,
                )
            )
    return tuple(report)
