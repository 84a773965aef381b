"""What equalisation may not scale alone: channels joined in space, or read by a sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from channel_graphs import GraphOf, Run, assert_close, chain, check_answers_stay, spread, two_layers
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from mer_calibration import DIALECTS, Probe, Quantised, check_dialect
from mer_calibration.graph.dialects import DialectName
from mer_calibration.measure.equalisation import OCTAVE, equalise, find_exponents, measure_peaks


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, NDArray[Any]]]:
    generator = np.random.default_rng(6)
    return [{"x": generator.normal(0, 1, (1, 16, 4, 4)).astype(np.float32)} for _ in range(4)]


class TestJoinedInSpace:
    """Several channels become one, which has one factor."""

    JOIN = helper.make_node("Concat", ["left_relu", "right"], ["z"], "join", axis=3)

    def test_one_factor(self, graph_of: GraphOf, pictures: Any, run_onnx: Run) -> None:
        model = two_layers(graph_of, self.JOIN)
        found = find_exponents(model, measure_peaks(model, pictures))
        assert found["left.weight"] == found["right.weight"]
        assert len(set(found["left.weight"])) > 5
        check_answers_stay(model, pictures, run_onnx)

    def test_parts_of_one_tensor(self, graph_of: GraphOf, run_onnx: Run) -> None:
        model = chain(graph_of, [("Concat", {"axis": 3})])
        found = find_exponents(model, {"first.weight": spread(8), "last.weight": spread(4)})
        assert any(found["first.weight"])
        feed = {"x": np.random.default_rng(2).normal(0, 1, (1, 3, 4, 4)).astype(np.float32)}
        assert_close(
            run_onnx(equalise(model, found), feed, optimised=False),
            run_onnx(model, feed, optimised=False),
        )

    def test_ties_reach_on(self, graph_of: GraphOf, pictures: Any, run_onnx: Run) -> None:
        """Through a second join, of what was joined with one of its parts."""
        nodes = [
            helper.make_node("Concat", ["left_relu", "right"], ["wide"], "join", axis=3),
            helper.make_node("Concat", ["wide", "right"], ["z"], "join_again", axis=3),
        ]
        model = two_layers(graph_of, *nodes)
        found = find_exponents(model, measure_peaks(model, pictures))
        assert found["left.weight"] == found["right.weight"]
        assert any(found["left.weight"])
        check_answers_stay(model, pictures, run_onnx)

    def test_one_that_is_fixed_fixes_all(self, graph_of: GraphOf, pictures: Any) -> None:
        model = two_layers(graph_of, self.JOIN, also="right")
        found = find_exponents(model, measure_peaks(model, pictures))
        assert not any(found["left.weight"])
        assert not any(found["right.weight"])


class TestReadByASum:
    """A sum gets the channels back as they were."""

    SUM = (
        helper.make_node("Sigmoid", ["right"], ["gate"], "gate"),
        helper.make_node("Add", ["left_relu", "gate"], ["z"], "sum"),
    )

    def test_all_channels_get_one_peak(self, graph_of: GraphOf, pictures: Any) -> None:
        model = two_layers(graph_of, *self.SUM)
        peaks = measure_peaks(model, pictures)
        found = find_exponents(model, peaks)
        before = peaks["left.weight"]
        after = before / np.exp2(np.divide(found["left.weight"], OCTAVE))
        # Rounding the exponent leaves half a step either way.
        most = 1.0001 * 2 ** (0.5 / OCTAVE)
        assert (after <= before.max() * most).all()
        assert (after >= before.max() / most).all()
        assert before.min() < before.max() / 16, "they were alike before"
        assert not any(found["right.weight"]), "what reads it doesn't scale"

    def test_answers_stay_equal(self, graph_of: GraphOf, pictures: Any, run_onnx: Run) -> None:
        model = two_layers(graph_of, *self.SUM)
        check_answers_stay(model, pictures, run_onnx)
        exponents = find_exponents(model, measure_peaks(model, pictures))
        kinds = [node.op_type for node in equalise(model, exponents).graph.node]
        assert kinds.count("Mul") == 1

    @pytest.mark.parametrize(
        "node",
        [
            helper.make_node("Concat", ["z", "left_relu"], ["more"], "more", axis=1),
            helper.make_node("Sigmoid", ["left_relu"], ["more"], "more"),
            helper.make_node("Add", ["left_relu", "z"], ["more"], "more"),
        ],
        ids=lambda node: str(node.op_type),
    )
    def test_what_others_read_too_stays(
        self, graph_of: GraphOf, pictures: Any, node: NodeProto
    ) -> None:
        model = two_layers(graph_of, *self.SUM, node)
        found = find_exponents(model, measure_peaks(model, pictures))
        assert not any(found["left.weight"])

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_sum_of_two_stays(
        self,
        graph_of: GraphOf,
        pictures: Any,
        run_onnx: Run,
        quantise: Callable[..., Quantised],
        dialect: DialectName,
    ) -> None:
        """ONNX Runtime has an int8 sum, and that has one scale for all channels."""
        model = two_layers(graph_of, helper.make_node("Add", ["left_relu", "right"], ["z"], "sum"))
        found = find_exponents(model, measure_peaks(model, pictures))
        assert not any(found["left.weight"])
        assert not any(found["right.weight"])
        run_onnx(quantise(equalise(model, found), pictures, dialect).model, pictures[0], int8=True)

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_costs_nothing_on_integers(
        self,
        graph_of: GraphOf,
        pictures: Any,
        run_onnx: Run,
        quantise: Callable[..., Quantised],
        dialect: DialectName,
    ) -> None:
        """Each channel is dequantised with a scale of its own, and engines compute that."""
        model = two_layers(graph_of, *self.SUM)
        equal = equalise(model, find_exponents(model, measure_peaks(model, pictures)))
        quantised = quantise(equal, pictures, dialect).model
        kinds = [node.op_type for node in quantised.graph.node]
        assert kinds.count("Mul") == (0 if DIALECTS[dialect].channel_scales else 1)
        check_dialect(quantised, DIALECTS[dialect])
        for feed in pictures:
            expected = run_onnx(model, feed)
            for optimised in (True, False):
                found = run_onnx(quantised, feed, optimised=optimised, int8=True)
                # Three layers of 8 bits.
                assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()

    @pytest.mark.parametrize("dialect", ["x86", "arm"])
    def test_faint_channels_gain(
        self,
        graph_of: GraphOf,
        pictures: Any,
        quantise: Callable[..., Quantised],
        dialect: DialectName,
    ) -> None:
        model = two_layers(graph_of, *self.SUM)
        peaks = measure_peaks(model, pictures)
        equal = equalise(model, find_exponents(model, peaks))
        faint = peaks["left.weight"] < peaks["left.weight"].max() / 16
        assert faint.sum() > 4

        def measure(graph: ModelProto, tensor: str) -> float:
            """Noise of the faint channels, as the sum reads them."""
            exact, given = Probe(model, ["left_relu"]), Probe(graph, [tensor])
            errors = [exact.read(feed)["left_relu"] - given.read(feed)[tensor] for feed in pictures]
            return float(np.square(np.concatenate(errors)[:, faint]).mean())

        before = measure(quantise(model, pictures, dialect).model, "left_relu_dq")
        after = measure(quantise(equal, pictures, dialect).model, "left_relu_restored")
        # Four bits more; but weights and pixels are rounded as before.
        assert after < 0.1 * before
