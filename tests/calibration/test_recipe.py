"""The whole order of int8, on a small encoder and head: what it finds, and what it writes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from mer_calibration import (
    DIALECTS,
    CalibrationError,
    Feeds,
    FloatAnswers,
    Ranges,
    Recipe,
    Window,
    calibrate_graphs,
    certify,
    check_dialect,
    find_foldable,
    find_range,
    hash_graph,
    observe,
    place,
    recipe,
)
from mer_calibration.graph.dialects import DialectName
from mer_calibration.graph.saturation import LIMIT
from mer_calibration.measure.noise import NOISELESS
from mer_calibration.recipe import count_steps, find_tensor_ranges, measure_dialect

Run = Callable[..., NDArray[np.float32]]
EVERY = pytest.mark.parametrize("dialect", DIALECTS)


@pytest.fixture(scope="module")
def graphs(net: ModelProto, head: ModelProto) -> dict[str, ModelProto]:
    return {"encoder": net, "head": head}


@pytest.fixture(scope="module")
def shown(
    net: ModelProto, feeds: list[dict[str, Any]], windows: list[Window], run_onnx: Run
) -> Feeds:
    """Six samples with a face, five with a voice; two of the windows lack something."""
    pictures = [*feeds, *({"faces": one.crops} for one in windows[1:])]
    samples = [
        {"mfcc": one.mfcc[None], "features": run_onnx(net, {"faces": one.crops})[None]}
        for one in windows
        if one.mfcc is not None
    ]
    samples.append({**samples[0], "mfcc": -samples[0]["mfcc"]})
    voice, face = (
        dataclasses.replace(windows[0], **{missing: None}) for missing in ("crops", "mfcc")
    )
    return Feeds(
        encoder=lambda: iter(pictures),
        head=lambda: iter(samples),
        windows=[*windows, voice, face],
        pixel_means=(120.0, 130.0, 140.0),
        samples=len(samples),
        faces=len(pictures),
    )


@pytest.fixture(scope="module")
def blank(graphs: dict[str, ModelProto]) -> Ranges:
    return Ranges(
        graphs={name: hash_graph(model) for name, model in graphs.items()},
        spec="s",
        exponents={},
        roundings={},
        pixel_means=(),
        dialects={},
        clips=6,
        clips_sha256="c",
        corpus="drawn",
    )


@pytest.fixture(scope="module")
def calibrated(graphs: dict[str, ModelProto], shown: Feeds, blank: Ranges) -> Ranges:
    steps: list[None] = []
    found = calibrate_graphs(graphs, shown, blank, lambda: steps.append(None))
    assert len(steps) == count_steps(shown)
    return found


def constants_of(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


class TestCalibrateGraphs:
    def test_what_it_is_made_from_is_kept(self, calibrated: Ranges, blank: Ranges) -> None:
        for name in ("graphs", "spec", "clips", "clips_sha256", "corpus"):
            assert getattr(calibrated, name) == getattr(blank, name)
        assert calibrated.pixel_means == (120.0, 130.0, 140.0)
        assert set(calibrated.dialects) == set(DIALECTS)
        assert {one.float_layers for one in calibrated.dialects.values()} == {()}

    def test_every_layer_and_tensor_is_there(
        self, calibrated: Ranges, graphs: dict[str, ModelProto]
    ) -> None:
        for name, model in graphs.items():
            layers = {layer.name for layer in place(model).layers}
            assert calibrated.roundings[name].keys() == layers
            for one in calibrated.dialects.values():
                assert set(one.tensors[name]) == set(place(model).sources())

    @pytest.mark.parametrize("most", [64, 3])
    def test_steps(
        self,
        most: int,
        graphs: dict[str, ModelProto],
        shown: Feeds,
        blank: Ranges,
        calibrated: Ranges,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As many as were counted, whether a pass uses all samples or a few; for one dialect."""
        monkeypatch.setattr(recipe, "DIALECTS", {"arm": DIALECTS["arm"]})
        monkeypatch.setattr(recipe, "ROUNDING_SAMPLES", most)
        monkeypatch.setattr(recipe, "PEAK_SAMPLES", most)
        steps: list[None] = []
        found = calibrate_graphs(graphs, shown, blank, lambda: steps.append(None))
        assert len(steps) == count_steps(shown)
        # The same samples, the same ranges.
        same = dataclasses.replace(calibrated, dialects={"arm": calibrated.of("arm")})
        assert (found == same) == (most == 64)

    @pytest.mark.parametrize("name", ["encoder", "head"])
    def test_values_that_are_not_finite(
        self, name: str, graphs: dict[str, ModelProto], shown: Feeds, blank: Ranges
    ) -> None:
        broken = {**graphs, name: ModelProto()}
        broken[name].CopyFrom(graphs[name])
        weight = {"encoder": "left.weight", "head": "rise"}[name]
        for tensor in broken[name].graph.initializer:
            if tensor.name == weight:
                value = numpy_helper.to_array(tensor).copy()
                value.flat[0] = np.nan
                tensor.CopyFrom(numpy_helper.from_array(value, weight))
        with pytest.raises(CalibrationError, match="not finite"):
            calibrate_graphs(broken, shown, blank)


def test_each_tensor_has_the_range_of_its_grid(net: ModelProto, feeds: list[Any]) -> None:
    """Those that are folded have all steps for one side; others spend half on the other."""
    histograms = observe(net, feeds, ["left_relu", "join_relu"], threads=1)
    by_grid = {
        symmetric: {name: find_range(one, symmetric=symmetric) for name, one in histograms.items()}
        for symmetric in (False, True)
    }
    for chosen in DIALECTS.values():
        folded = find_foldable(net, chosen.place(net)) if chosen.fold_zero_points else frozenset()
        # ``join_relu`` stays float in those dialects, or is read by nothing that could fold.
        assert ("left_relu" in folded, "join_relu" in folded) == (chosen.fold_zero_points, False)
        assert find_tensor_ranges(net, histograms, chosen) == {
            name: by_grid[chosen.symmetric and name not in folded][name] for name in histograms
        }


class TestWrite:
    @EVERY
    def test_graphs_are_of_the_dialect_and_certified(
        self, dialect: DialectName, calibrated: Ranges, graphs: dict[str, ModelProto]
    ) -> None:
        written = Recipe(graphs, calibrated).write(dialect)
        for model in (written.encoder, written.head):
            check_dialect(model, DIALECTS[dialect])
        encoder, head = certify(written.encoder), certify(written.head)
        assert written.certificate == encoder.join(head)
        assert (encoder.layers, head.layers) == (4, 2)
        assert written.certificate.largest <= LIMIT

    @EVERY
    def test_noise_is_that_of_the_graphs_that_are_written(
        self,
        dialect: DialectName,
        calibrated: Ranges,
        graphs: dict[str, ModelProto],
        shown: Feeds,
        run_onnx: Run,
    ) -> None:
        """Window by window, by hand."""
        written = Recipe(graphs, calibrated).write(dialect)
        net, head = graphs["encoder"], graphs["head"]
        black = run_onnx(net, {"faces": np.zeros((4, 8, 8, 3), np.uint8)})
        added: dict[str, list[Any]] = {"both": [], "audio": [], "video": []}
        margins: dict[str, list[float]] = {name: [] for name in added}
        signal = noise = 0.0
        spread = []
        for window in shown.windows:
            exact = found = black
            if window.crops is not None:
                exact = run_onnx(net, {"faces": window.crops})
                found = run_onnx(written.encoder, {"faces": window.crops})
                signal += float(np.square(exact, dtype=np.float64).sum())
                noise += float(np.square(exact - found, dtype=np.float64).sum())
            for name in window.feeds():
                silent = name == "video" or window.mfcc is None
                mfcc = np.zeros((1, 10, 12), np.float32) if silent else window.mfcc[None]
                one, other = (
                    run_onnx(model, {"mfcc": mfcc, "features": features[None]})[0].astype(float)
                    for model, features in (
                        (head, black if name == "audio" else exact),
                        (written.head, black if name == "audio" else found),
                    )
                )
                added[name].append(other - one - (other - one).mean())
                spread.append(one.std())
                second, first = np.argsort(one)[-2:]
                margins[name].append((other[first] - other[second]) - (one[first] - one[second]))
        stored = calibrated.of(dialect).noise
        # Kernels for other batches and threads may round a value between two steps otherwise.
        assert stored.sqnr == pytest.approx(10 * math.log10(signal / noise), abs=0.1)
        assert stored.logits.keys() == added.keys()
        for name, logits in stored.logits.items():
            assert logits.windows == len(added[name]) == (4 if name == "both" else 5)
            assert logits.rms == pytest.approx(np.sqrt(np.square(added[name]).mean()), rel=0.05)
            assert logits.largest == pytest.approx(np.abs(added[name]).max(), rel=0.05)
            margin = np.sqrt(np.square(margins[name]).mean())
            assert logits.margin == pytest.approx(margin, rel=0.05)
            # 8 bits; the voice alone has the head read features of black crops, beyond its ranges.
            assert 0 < logits.rms < 0.06 * np.mean(spread)
        assert stored.sqnr > 40

    @EVERY
    def test_mean_error_of_features_is_taken_back(
        self, dialect: DialectName, calibrated: Ranges, graphs: dict[str, ModelProto], shown: Feeds
    ) -> None:
        from mer_calibration.measure.observation import open_session

        one, other = (
            open_session(model)
            for model in (graphs["encoder"], Recipe(graphs, calibrated).write(dialect).encoder)
        )
        errors = np.concatenate(
            [one.run(None, feed)[0] - other.run(None, feed)[0] for feed in shown.encoder()]
        )
        # The correction is rounded, and equalised graphs differ by float32's roundings.
        assert np.abs(errors.mean(axis=0, dtype=np.float64)).max() < 1e-5
        assert np.abs(calibrated.of(dialect).bias_correction).max() > 1e-3

    def test_better_than_nearest_steps_of_uneven_channels(
        self,
        calibrated: Ranges,
        graphs: dict[str, ModelProto],
        shown: Feeds,
        quantise: Callable[..., Any],
    ) -> None:
        """What the order is for."""
        answers = FloatAnswers(graphs["encoder"], graphs["head"], shown.windows)
        plain = [
            quantise(graphs["encoder"], list(shown.encoder())).model,
            quantise(graphs["head"], list(shown.head())).model,
        ]
        nearest = answers.measure(plain[0], plain[1])
        assert calibrated.of("x86").noise.sqnr > nearest.sqnr
        assert calibrated.of("x86").noise.logits["both"].rms < nearest.logits["both"].rms

    def test_same_graphs_from_a_file(
        self, calibrated: Ranges, graphs: dict[str, ModelProto], tmp_path: Path
    ) -> None:
        calibrated.write(tmp_path / "ranges.json")
        read = Ranges.read(tmp_path / "ranges.json")
        assert read == calibrated
        one, other = (Recipe(graphs, found).write("x86") for found in (calibrated, read))
        assert one == other

    def test_dialect_that_the_calibration_did_not_know(
        self, calibrated: Ranges, graphs: dict[str, ModelProto]
    ) -> None:
        known = {name: one for name, one in calibrated.dialects.items() if name != "arm"}
        older = dataclasses.replace(calibrated, dialects=known)
        Recipe(graphs, older).write("x86")
        message = "no ranges for arm, only for openvino, tensorrt, x86: .*calibrate again"
        with pytest.raises(CalibrationError, match=message):
            Recipe(graphs, older).write("arm")

    def test_ranges_of_other_graphs(
        self, calibrated: Ranges, graphs: dict[str, ModelProto]
    ) -> None:
        narrow = ModelProto()
        narrow.CopyFrom(graphs["head"])
        for tensor in narrow.graph.initializer:
            if tensor.name in ("rise", "fall"):
                value = numpy_helper.to_array(tensor)
                part = value[:, :16] if tensor.name == "rise" else value[:16]
                tensor.CopyFrom(numpy_helper.from_array(part.copy(), tensor.name))
        with pytest.raises(CalibrationError, match="another graph: calibrate again"):
            Recipe({**graphs, "head": narrow}, calibrated).write("x86")

    def test_graphs_given_are_left_alone(
        self, calibrated: Ranges, graphs: dict[str, ModelProto]
    ) -> None:
        before = {name: hash_graph(model) for name, model in graphs.items()}
        Recipe(graphs, calibrated).write("tensorrt")
        assert before == {name: hash_graph(model) for name, model in graphs.items()}
        assert before == calibrated.graphs


#: A layer of each graph.
KEPT = ("join.weight", "fall")


@pytest.fixture(scope="module")
def kept(calibrated: Ranges, graphs: dict[str, ModelProto], shown: Feeds) -> Ranges:
    """With ``KEPT`` in float, in one dialect."""
    steps: list[None] = []
    found = measure_dialect(graphs, calibrated, "x86", shown, KEPT, step=lambda: steps.append(None))
    assert len(steps) == shown.faces + len(shown.windows)
    return calibrated.replace("x86", found)


class TestFloatLayers:
    def test_weights_stay_float(self, kept: Ranges, graphs: dict[str, ModelProto]) -> None:
        written = Recipe(graphs, kept).write("x86")
        for model, name in ((written.encoder, "join.weight"), (written.head, "fall")):
            constants = constants_of(model)
            assert constants[name].dtype == np.float32
            assert f"{name}_q" not in constants
        assert {"left.weight_q", "stem.weight_q"} <= constants_of(written.encoder).keys()
        assert "rise_q" in constants_of(written.head)
        assert written.certificate.layers == 4

    def test_what_is_left_is_measured_anew(
        self, kept: Ranges, calibrated: Ranges, graphs: dict[str, ModelProto], shown: Feeds
    ) -> None:
        before, after = calibrated.of("x86"), kept.of("x86")
        assert after.float_layers == KEPT
        assert after.tensors == before.tensors
        assert after.bias_correction != before.bias_correction
        assert after.noise.sqnr > before.noise.sqnr
        written = Recipe(graphs, kept).write("x86")
        answers = FloatAnswers(graphs["encoder"], graphs["head"], shown.windows)
        assert answers.measure(written.encoder, written.head).sqnr == pytest.approx(
            after.noise.sqnr, abs=0.1
        )

    def test_other_dialects_keep_what_they_had(self, kept: Ranges, calibrated: Ranges) -> None:
        for name in DIALECTS:
            assert (kept.of(name) == calibrated.of(name)) == (name != "x86")

    def test_every_layer(
        self, calibrated: Ranges, graphs: dict[str, ModelProto], shown: Feeds, tmp_path: Path
    ) -> None:
        every = [layer.name for model in graphs.values() for layer in place(model).layers]
        found = measure_dialect(graphs, calibrated, "arm", shown, every)
        assert found.noise.sqnr == NOISELESS
        ranges = calibrated.replace("arm", found)
        assert Recipe(graphs, ranges).write("arm").certificate.layers == 0
        ranges.write(tmp_path / "ranges.json")
        assert Ranges.read(tmp_path / "ranges.json") == ranges


class TestDescribeLayers:
    @EVERY
    def test_all_layers_of_both_graphs(
        self, dialect: DialectName, calibrated: Ranges, graphs: dict[str, ModelProto], shown: Feeds
    ) -> None:
        layers = Recipe(graphs, calibrated).describe_layers(dialect, shown)
        assert [(layer.graph, layer.name) for layer in layers] == [
            *(("encoder", f"{name}.weight") for name in ("stem", "left", "right", "join")),
            *(("head", name) for name in ("rise", "fall")),
        ]
        tensors = calibrated.of(dialect).tensors
        for layer in layers:
            found = tensors[layer.graph][layer.tensor]
            assert (layer.low, layer.high, layer.clipped) == (found.low, found.high, found.clipped)
            assert 20 < layer.sqnr < 60

    def test_also_those_that_stay_float(
        self, calibrated: Ranges, graphs: dict[str, ModelProto], shown: Feeds
    ) -> None:
        kept = dataclasses.replace(calibrated.of("x86"), float_layers=("join.weight",))
        one, other = (
            Recipe(graphs, ranges).describe_layers("x86", shown)
            for ranges in (calibrated, calibrated.replace("x86", kept))
        )
        assert one == other
