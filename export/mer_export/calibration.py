"""A calibration on a corpus: which clips, what the graphs do on them, and the ranges chosen."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer import Checkpoint
from mer.cache import Cache
from mer.dataset import read_crops, read_targets
from mer_calibration import CalibrationError, Layer, Ranges, compare_tensors, observe
from mer_calibration.dialects import DIALECTS
from mer_calibration.equalisation import equalise, find_exponents, measure_peaks
from mer_calibration.observation import Feed, open_session
from mer_calibration.placement import place
from mer_calibration.quantisation import quantise_graph
from mer_calibration.rounding import find_roundings, round_weights
from mer_calibration.sensitivity import choose_ranges, count_choices, measure_sensitivity
from mer_calibration.trial import Trial, Window
from mer_export.graphs import Graphs
from mer_runtime.bundle import ENCODER
from mer_runtime.spec import Spec

#: Clips that are taken, and the fewest that will do.
CLIPS, FEWEST_CLIPS = 128, 16
#: Of ten clips, one has no face and one no voice: a device meets both.
EVERY, WITHOUT_FACE, WITHOUT_VOICE = 10, 3, 7
#: Crops of a clip that are observed: its frames look alike.
OBSERVED_CROPS = 3
#: Clips from which the peaks of channels are taken.
PEAK_CLIPS = 32
#: Clips on which weights are rounded.
ROUNDING_CLIPS = 64
#: Windows on which answers are compared.
TRIAL_WINDOWS = 40
#: Crops of each by which layers are told apart. Ranges are chosen on whole windows: what cutting
#: values off costs is alike in all crops, what rounding costs is mostly gone from their average.
TRIAL_CROPS = 3
#: What ranges are chosen with; they serve every dialect.
DIALECT = DIALECTS["x86"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """A clip of the calibration set; a modality that isn't there is fed as missing."""

    row: int
    id: str
    face: bool = True
    voice: bool = True


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
    clips: int = CLIPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Choose ranges on training actors' clips and measure what each layer costs.

    Args:
        graphs: the float graphs of ``checkpoint``.
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
    steps = _Steps(observed + 2 * len(rounding) + count_choices() + layers + 1, progress)
    inputs = _Inputs(cache, spec, samples)
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

    trial = make_trial(inputs.windows(spec.video.frames))
    chosen = choose_ranges(trial, histograms, DIALECT, step=steps.advance)
    ranges = Ranges(
        graphs=floats.hashes(),
        spec=hash_preprocessing(spec),
        tensors=chosen,
        exponents=exponents,
        roundings=roundings,
        pixel_means=pixel_means,
        clips=len(samples),
        clips_sha256=hash_samples(samples),
        corpus=cache.digest,
    )
    report = _report_layers(graphs, candidates, ranges, make_trial, inputs, steps)
    steps.finish()
    return Calibration(ranges, report, samples)


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
    return tuple(
        Sample(
            row=row,
            id=cache.rows[row].id,
            face=i % EVERY != WITHOUT_FACE and cache.rows[row].has_face,
            voice=i % EVERY != WITHOUT_VOICE,
        )
        for i, row in enumerate(drawn)
    )


def hash_samples(samples: Sequence[Sample]) -> str:
    """sha256 over the list of clips and the modalities taken from each, one a line."""
    lines = (f"{s.id} {'f' if s.face else '-'}{'v' if s.voice else '-'}\n" for s in samples)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_preprocessing(spec: Spec) -> str:
    """sha256 over what decides the graphs' inputs: audio and video, not labels or fusion."""
    content = spec.to_dict()
    text = json.dumps({"audio": content["audio"], "video": content["video"]}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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


class _Inputs:
    """The samples as feeds of either graph."""

    def __init__(self, cache: Cache, spec: Spec, samples: Sequence[Sample]) -> None:
        self.cache, self.spec, self.samples = cache, spec, samples

    def feeds(self, name: str, graphs: Graphs) -> Iterator[dict[str, NDArray[Any]]]:
        """Inputs of the graph called ``name``, a sample after the other."""
        return self._encoder() if name == ENCODER else self._head(graphs)

    def pixel_means(self) -> tuple[float, ...]:
        """Each colour's average."""
        means = [feed["faces"].mean(axis=(0, 1, 2)) for feed in self._encoder()]
        return tuple(round(float(mean), 3) for mean in np.mean(means, axis=0))

    def _encoder(self) -> Iterator[dict[str, NDArray[Any]]]:
        shown = _spread(self.spec.video.frames, OBSERVED_CROPS)
        # Where the face is missing a device runs no encoder.
        for sample in self.samples:
            if sample.face:
                yield {"faces": np.ascontiguousarray(self._crops(sample)[shown])}

    def _head(self, graphs: Graphs) -> Iterator[dict[str, NDArray[Any]]]:
        session = open_session(graphs.encoder)
        for sample in self.samples:
            features = session.run(None, {"faces": self._crops(sample)})[0]
            yield {"mfcc": self._mfcc(sample)[None], "features": features[None]}

    def windows(self, crops: int) -> list[Window]:
        """Every second one shows its face alone, where answers are the least certain."""
        shown = _spread(self.spec.video.frames, crops)
        silence = np.zeros(self.spec.audio.shape, np.float32)
        return [
            Window(
                silence if i % 2 and sample.face else self._mfcc(sample),
                np.ascontiguousarray(self._crops(sample)[shown]) if sample.face else None,
            )
            for i, sample in enumerate(self.samples[:TRIAL_WINDOWS])
        ]

    def each_alone(self, crops: int) -> list[Window]:
        """Each clip three times, or what it has of that: whole, its voice alone, its face alone."""
        shown = _spread(self.spec.video.frames, crops)
        silence = np.zeros(self.spec.audio.shape, np.float32)
        windows = []
        for sample in self.samples[:TRIAL_WINDOWS]:
            mfcc = self._mfcc(sample)
            faces = np.ascontiguousarray(self._crops(sample)[shown]) if sample.face else None
            if sample.face and sample.voice:
                windows.append(Window(mfcc, faces))
            if sample.voice:
                windows.append(Window(mfcc, None))
            if sample.face:
                windows.append(Window(silence, faces))
        return windows

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


def _spread(frames: int, count: int) -> NDArray[np.int64]:
    return np.linspace(0, frames - 1, min(count, frames)).round().astype(np.int64)


def _report_layers(
    graphs: Graphs,
    candidates: Graphs,
    ranges: Ranges,
    make_trial: Callable[[Sequence[Window]], Trial],
    inputs: _Inputs,
    steps: _Steps,
) -> tuple[Layer, ...]:
    trial = make_trial(inputs.each_alone(TRIAL_CROPS))
    shares = measure_sensitivity(trial, ranges.tensors, DIALECT, step=steps.advance)
    share_of = {(key.graph, key.layer): share for key, share in shares.items()}
    # With data movement between pairs, every layer's output is there dequantised.
    dialect = dataclasses.replace(DIALECT, integer_moves=False)
    report = []
    for (name, model), (_, candidate) in zip(graphs.items(), candidates.items(), strict=True):
        tensors = ranges.tensors[name]
        quantised = quantise_graph(candidate, tensors, dialect, (), ranges.pixel_means)
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
