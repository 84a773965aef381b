"""A float graph and the ranges of its tensors to a quantised graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from onnx import ModelProto

from mer_calibration.errors import CalibrationError
from mer_calibration.graph.dialects import Dialect, check_dialect, round_constants
from mer_calibration.graph.grid import Grid, Range
from mer_calibration.graph.placement import Placement
from mer_calibration.graph.qdq import write_qdq
from mer_calibration.graph.saturation import Certificate, certify
from mer_calibration.graph.space_to_depth import space_to_depth
from mer_calibration.graph.weights import RoundedWeights
from mer_calibration.graph.zero_point_folding import find_foldable, fold_zero_points


@dataclass(frozen=True)
class Quantised:
    """A quantised graph.

    Attributes:
        model: with the float graph's tensor names, and ``_q`` and ``_dq`` behind them.
        placement: what is int8 in it.
        rounded: for each output of a quantised layer, the tensor that holds it dequantised,
            where there is one; none does where a zero-point was folded.
        certificate: that none of its sums can overflow.
    """

    model: ModelProto
    placement: Placement
    rounded: Mapping[str, str]
    certificate: Certificate


def quantise_graph(
    model: ModelProto,
    ranges: Mapping[str, Range],
    dialect: Dialect,
    keep_float: Collection[str] = (),
    pixel_means: Sequence[float] = (),
    weights: RoundedWeights = MappingProxyType({}),
    *,
    fold: bool = True,
) -> Quantised:
    """Bring ``model``, a float graph, into int8 in ``dialect``.

    Args:
        ranges: for each source tensor of the graph's placement.
        keep_float: names of layers that stay float.
        pixel_means: average pixel of each colour, 0 to 255; see ``write_qdq``.
        weights: of layers whose weights were rounded; see ``write_qdq``.
        fold: whether a dialect that folds zero-points has them folded. Without it the graph isn't
            of the dialect, but its tensors can be compared with those of ``model``.

    Raises:
        CalibrationError: a tensor has no range.
        DialectError: what came out isn't of ``dialect``.
        SaturationError: it can overflow on some x86 processors.
    """
    placement = dialect.place(model, keep_float)
    folded = find_foldable(model, placement) if dialect.fold_zero_points else frozenset()
    grids = choose_grids(placement, ranges, dialect, folded)
    written = write_qdq(model, placement, grids, dialect.before_folding(), pixel_means, weights)
    if dialect.fold_zero_points and fold:
        written = fold_zero_points(written)
        check_dialect(written, dialect)
    if dialect.half_constants:
        round_constants(written)
    if dialect.space_to_depth:
        written = space_to_depth(written, dialect.space_to_depth)
    certificate = certify(written)
    tensors = {name for node in written.graph.node for name in node.output}
    rounded = {
        layer.output: f"{layer.output}_dq"
        for layer in placement.layers
        if f"{layer.output}_dq" in tensors and not (fold and layer.output in folded)
    }
    return Quantised(written, placement, rounded, certificate)


def choose_grids(
    placement: Placement,
    ranges: Mapping[str, Range],
    dialect: Dialect,
    folded: Collection[str] = (),
) -> dict[str, Grid]:
    """One grid for the sources of each group: it covers the ranges of them all.

    Args:
        folded: sources whose zero-points are folded.

    Raises:
        CalibrationError: a tensor has no range.
    """
    grids: dict[str, Grid] = {}
    for group in placement.groups:
        if group.pixels:
            continue
        missing = [source for source in group.sources if source not in ranges]
        if missing:
            raise CalibrationError(
                f"tensor '{missing[0]}' has no range: calibrate again on this graph"
            )
        low = min(ranges[source].low for source in group.sources)
        high = max(ranges[source].high for source in group.sources)
        kind = dialect.before_folding() if group.sources[0] in folded else dialect
        grids.update(dict.fromkeys(group.sources, kind.make_grid(low, high)))
    return grids
