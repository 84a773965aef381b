"""Which layers an export returns to float, and in which order."""

from __future__ import annotations

from mer_calibration import Layer
from mer_export.fallback import MOST_FLOAT_LAYERS, STANDS_OUT, choose_float_layers


def layer(name: str, graph: str, cost: float, **shares: float) -> Layer:
    return Layer(
        graph=graph,
        name=name,
        op_type="Conv",
        tensor=f"{name}_out",
        low=0.0,
        high=1.0,
        method="wide",
        clipped=0.0,
        sqnr=30.0,
        error_share=cost,
        shares=shares,
    )


EVEN = (layer("a", "encoder", 6.0), layer("b", "encoder", 9.0), layer("h", "head", 1.0))


def test_head_goes_first_where_no_layer_stands_out() -> None:
    two = (*EVEN, layer("i", "head", 0.0))
    assert choose_float_layers(two, (), None) == ["h", "i"]


def test_then_the_encoders_layers_by_their_cost() -> None:
    assert choose_float_layers(EVEN, ["h"], None) == ["b"]
    assert choose_float_layers(EVEN, ["h", "b"], None) == ["a"]
    assert choose_float_layers(EVEN, ["h", "b", "a"], None) == []


def test_layer_that_stands_out_goes_before_the_head() -> None:
    assert choose_float_layers((*EVEN, layer("c", "encoder", STANDS_OUT)), (), None) == ["c"]


def test_cost_is_that_of_what_was_shown() -> None:
    layers = (
        layer("a", "encoder", 60.0, audio=0.0, video=30.0),
        layer("h", "head", 40.0, audio=100.0, video=70.0),
    )
    assert choose_float_layers(layers, (), None) == ["a"]
    assert choose_float_layers(layers, (), "audio") == ["h"]
    assert choose_float_layers(layers, ["h"], "audio") == [], "the rest costs the voice nothing"


def test_encoder_keeps_most_of_its_layers() -> None:
    layers = tuple(layer(f"e{i}", "encoder", 7.0) for i in range(MOST_FLOAT_LAYERS + 2))
    kept: list[str] = []
    while chosen := choose_float_layers(layers, kept, None):
        kept += chosen
    assert len(kept) == MOST_FLOAT_LAYERS
