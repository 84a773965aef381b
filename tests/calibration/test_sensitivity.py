"""Which method and which layer matter: cases where the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from mer_calibration import (
    DIALECTS,
    METHODS,
    Histogram,
    Trial,
    Window,
    apply_method,
    choose_ranges,
    find_centred,
    find_range,
    measure_sensitivity,
    observe,
    place,
    quantise_graph,
)
from mer_calibration.sensitivity import PREFERENCE, LayerKey, count_choices

X86 = DIALECTS["x86"]
Histograms = dict[str, dict[str, Histogram]]


@pytest.fixture
def histograms(trial: Trial, run_onnx: Callable[..., Any]) -> Histograms:
    """Observed on the trial's own windows."""
    encoder_feeds = [{"faces": window.crops} for window in trial.windows]
    head_feeds = []
    for window in trial.windows:
        features = run_onnx(trial.encoder, {"faces": window.crops})
        frames = np.arange(4) * len(features) // 4
        head_feeds.append({"mfcc": window.mfcc[None], "features": features[frames][None]})
    return {
        "encoder": observe(trial.encoder, encoder_feeds, place(trial.encoder).sources()),
        "head": observe(trial.head, head_feeds, place(trial.head).sources()),
    }


def ranges_by(histograms: Histograms, method: Any) -> Any:
    return {
        graph: {name: find_range(h, method, symmetric=False) for name, h in tensors.items()}
        for graph, tensors in histograms.items()
    }


def error_of(trial: Trial, ranges: Any) -> float:
    return trial.error(
        quantise_graph(trial.encoder, ranges["encoder"], X86).model,
        quantise_graph(trial.head, ranges["head"], X86).model,
    )


class TestApplyMethod:
    def test_asymmetric_grids(self, trial: Trial, histograms: Histograms) -> None:
        graphs = {"encoder": trial.encoder, "head": trial.head}
        found = apply_method(graphs, histograms, "percentile", X86)
        assert found == ranges_by(histograms, "percentile")

    def test_each_on_the_grid_that_it_gets(self, trial: Trial, histograms: Histograms) -> None:
        """Those that are centred have all steps for one side; others spend half on the other."""
        graphs = {"encoder": trial.encoder, "head": trial.head}
        found = apply_method(graphs, histograms, "wide", DIALECTS["portable"])
        placement = place(trial.encoder, float_outputs=True)
        centred = find_centred(trial.encoder, placement)
        assert centred
        assert set(placement.sources()) >= centred - {"pixels"}
        for tensor, histogram in histograms["encoder"].items():
            wide = find_range(histogram, "wide", symmetric=tensor not in centred)
            assert found["encoder"][tensor].high == wide.high
            assert found["encoder"][tensor].low == max(wide.low, min(histogram.low, 0.0))
        rectified = histograms["head"]["rise_relu"]
        assert rectified.low == 0
        assert found["head"]["rise_relu"].low == 0, "nothing was seen below"


def test_every_layer_has_its_share(trial: Trial, histograms: Histograms) -> None:
    steps: list[None] = []
    shares = measure_sensitivity(
        trial, ranges_by(histograms, "minmax"), X86, step=lambda: steps.append(None)
    )
    assert {key.layer for key in shares if key.graph == "encoder"} == {
        f"{name}.weight" for name in ("stem", "left", "right", "join", "fc")
    }
    assert {key.layer for key in shares if key.graph == "head"} == {"rise", "fall"}
    totals = [share.total for share in shares.values()]
    assert sum(totals) == pytest.approx(100)
    assert min(totals) >= 0
    assert totals == sorted(totals, reverse=True)
    assert len(steps) == len(shares) == 7


def test_layers_are_measured_alone(trial: Trial, histograms: Histograms) -> None:
    ranges = ranges_by(histograms, "minmax")
    shares = measure_sensitivity(trial, ranges, X86)
    others = [layer.name for layer in place(trial.encoder).layers if layer.name != "right.weight"]
    right = quantise_graph(trial.encoder, ranges["encoder"], X86, others).model
    rise = quantise_graph(trial.head, ranges["head"], X86, ["fall"]).model
    expected = trial.error(right, None) / trial.error(None, rise)
    one, other = (
        shares[LayerKey(*names)] for names in (("encoder", "right.weight"), ("head", "rise"))
    )
    assert one.total / other.total == pytest.approx(expected)


def test_shares_by_what_is_shown(trial: Trial, histograms: Histograms) -> None:
    """As of a trial in which nothing else is shown; the encoder has no part in a voice alone."""
    ranges = ranges_by(histograms, "minmax")
    both, audio, video = (
        list(trial.windows),
        [Window(window.mfcc, None) for window in trial.windows],
        [Window(np.zeros_like(window.mfcc), window.crops) for window in trial.windows],
    )

    def measure(windows: list[Window]) -> Any:
        return measure_sensitivity(
            Trial(trial.encoder, trial.head, windows, threads=1), ranges, X86
        )

    every = measure([*both, *audio, *video])
    assert all(set(share.by_shown) == {"both", "audio", "video"} for share in every.values())
    for shown, windows in (("both", both), ("audio", audio), ("video", video)):
        for key, share in measure(windows).items():
            assert share.by_shown == {shown: share.total}
            assert every[key].by_shown[shown] == pytest.approx(share.total), (shown, key)
    heard = {key.graph for key, share in every.items() if share.by_shown["audio"]}
    assert heard == {"head"}


def test_rounded_weights_count_for_their_own_layer(trial: Trial, histograms: Histograms) -> None:
    """However badly one layer's weights are rounded, it isn't the others that are to blame."""
    rounded = ModelProto()
    rounded.CopyFrom(trial.encoder)
    (tensor,) = (t for t in rounded.graph.initializer if t.name == "left.weight")
    worse = numpy_helper.to_array(tensor) * np.float32(1.5)
    tensor.CopyFrom(numpy_helper.from_array(worse, tensor.name))
    spoilt = Trial(
        trial.encoder, trial.head, trial.windows, rounded=(rounded, trial.head), threads=1
    )
    shares = measure_sensitivity(spoilt, ranges_by(histograms, "minmax"), X86)
    assert shares[LayerKey("encoder", "left.weight")].total > 95


@pytest.mark.parametrize("graph", ["encoder", "head"])
def test_a_bad_layer_ranks_first(trial: Trial, histograms: Histograms, graph: str) -> None:
    """A weight 2000 times larger than the rest, on an input that is always zero: the float answer
    stays as it is, but the others are lost in the steps it needs."""
    worse = {name: ModelProto() for name in ("encoder", "head")}
    worse["encoder"].CopyFrom(trial.encoder)
    worse["head"].CopyFrom(trial.head)
    name, spoil = {
        "encoder": ("left.weight", (slice(None), slice(3, 5))),  # of stem's two dead channels
        "head": ("fall", (slice(0, 1), slice(None))),  # of rise's dead one
    }[graph]
    (tensor,) = (t for t in worse[graph].graph.initializer if t.name == name)
    value = numpy_helper.to_array(tensor).copy()
    value[spoil] = 2000 * np.abs(value).max()
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    spoilt = Trial(worse["encoder"], worse["head"], trial.windows, threads=1)
    assert spoilt.logits == pytest.approx(trial.logits, rel=1e-5, abs=1e-5)
    ranges = ranges_by(histograms, "minmax")
    before = measure_sensitivity(trial, ranges, X86)
    shares = measure_sensitivity(spoilt, ranges, X86)
    bad = LayerKey(graph, name)
    assert next(iter(shares)) == bad
    assert shares[bad].total > max(40, 3 * before[bad].total)


def test_no_error_at_all(trial: Trial, histograms: Histograms) -> None:
    """Shares of nothing are nothing."""
    silent = ModelProto()
    silent.CopyFrom(trial.head)
    for tensor in silent.graph.initializer:
        if tensor.name in ("classify", "listen"):
            zeros = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    quiet = Trial(trial.encoder, silent, trial.windows, threads=1)
    shares = measure_sensitivity(quiet, ranges_by(histograms, "minmax"), X86)
    assert {share.total for share in shares.values()} == {0}


def test_clips_where_one_value_is_far_out(trial: Trial, histograms: Histograms) -> None:
    """A value 50 times beyond all others, once: the full range has steps 50 times wider."""
    far = 50 * histograms["encoder"]["join_relu"].high
    usual = np.random.default_rng(0).uniform(0, far / 50, 400_000).astype(np.float32)
    histograms["encoder"]["join_relu"].update(np.append(usual, np.float32(far)))
    steps: list[None] = []
    chosen = choose_ranges(trial, histograms, X86, step=lambda: steps.append(None))
    assert len(METHODS) <= len(steps) <= count_choices()
    found = chosen["encoder"]["join_relu"]
    assert found.method != "minmax"
    assert found.high < far / 5
    errors = {method: error_of(trial, ranges_by(histograms, method)) for method in METHODS}
    assert error_of(trial, chosen) <= min(errors.values()) / PREFERENCE
    assert error_of(trial, chosen) < errors["minmax"] / 4


def test_keeps_peaks_that_matter(trial: Trial, histograms: Histograms) -> None:
    """Of the trial's values few are large; among many small ones they look like chance."""
    for graph, name in (("head", "rise_relu"), ("encoder", "mean")):
        peak = histograms[graph][name].high
        small = np.random.default_rng(1).exponential(peak / 300, 1_000_000).astype(np.float32)
        histograms[graph][name].update(small)
    cut = min(
        METHODS, key=lambda m: find_range(histograms["head"]["rise_relu"], m, symmetric=False).high
    )
    assert find_range(histograms["head"]["rise_relu"], cut, symmetric=False).clipped > 0
    chosen = choose_ranges(trial, histograms, X86)
    assert error_of(trial, chosen) < error_of(trial, ranges_by(histograms, cut)) / 2
    assert chosen["head"]["rise_relu"].high > 0.8 * histograms["head"]["rise_relu"].high


@pytest.mark.parametrize("preference", [PREFERENCE, 1.0, 0.0])
def test_starts_from_the_best_method_or_from_wide(
    preference: float, trial: Trial, histograms: Histograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mer_calibration.sensitivity.REFINED_GROUPS", 0)
    monkeypatch.setattr("mer_calibration.sensitivity.PREFERENCE", preference)
    far = 50 * histograms["encoder"]["join_relu"].high
    histograms["encoder"]["join_relu"].update(np.append(np.zeros(400_000), far).astype(np.float32))
    candidates = {method: ranges_by(histograms, method) for method in METHODS}
    errors = {method: error_of(trial, candidates[method]) for method in METHODS}
    best = min(METHODS, key=lambda method: errors[method])
    assert best not in ("minmax", "wide")
    clearly = errors[best] <= preference * errors["wide"]
    assert choose_ranges(trial, histograms, X86) == candidates[best if clearly else "wide"]


def test_every_tensor_gets_a_range(trial: Trial, histograms: Histograms) -> None:
    chosen = choose_ranges(trial, histograms, X86)
    assert {graph: set(ranges) for graph, ranges in chosen.items()} == {
        "encoder": set(place(trial.encoder).sources()),
        "head": set(place(trial.head).sources()),
    }
