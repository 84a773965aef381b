"""Post-training quantisation: from a float graph and a few clips to integers that answer alike.

A quantised graph computes with 8-bit integers, each standing for a point of a grid. How fine the
grid of an activation is, and what it cuts off, is decided here, in this order:

1. ``observe`` runs the float graph on calibration clips and keeps a ``Histogram`` of every
   activation.
2. ``find_range`` chooses from a histogram what the grid covers: a wide range rounds coarsely, a
   narrow one clips.
3. ``Ranges`` keeps the choices, together with the hashes of the graphs and the clips they were
   made from; ``Ranges.require`` refuses them for any other graph.
4. ``asymmetric_grid``, ``symmetric_grid`` and ``weight_scales`` make the grids of a range and of
   weights.
5. ``place`` decides which tensors of a float graph are rounded, and ``quantise_graph`` writes them
   down as Q/DQ pairs in one of the ``DIALECTS``; ``check_dialect`` refuses a graph that isn't of
   its dialect. Where an engine wants zero-point 0, ``fold_zero_points`` hides others in the layers
   around (``mer_calibration.graph.zero_point_folding``). ``shorten_names`` and ``halve_weights``
   make the file small.
6. ``certify`` holds the outcome to the rule of ``mer_calibration.graph.saturation``: no sum of it
   can overflow, so that every processor computes the same integers.
7. ``FloatAnswers`` measures what rounding adds to the answers, and ``compare_tensors`` what it adds
   layer by layer; ``format_layers`` prints that.

``mer_calibration.recipe`` has the order of all this, and what stands around it: cross-layer
equalisation makes the channels of a tensor alike before 1, GPTQ rounding lets the errors of
weights cancel, and bias correction takes back what all roundings together add to a graph's output
on average.

It knows ONNX graphs and numpy arrays; of our packages it imports ``mer_runtime`` alone.
"""

from mer_calibration.errors import CalibrationError, DialectError, SaturationError
from mer_calibration.graph.dialects import DIALECTS, Dialect, check_dialect
from mer_calibration.graph.grid import Grid, Range, asymmetric_grid, symmetric_grid, weight_scales
from mer_calibration.graph.naming import shorten_names
from mer_calibration.graph.placement import place
from mer_calibration.graph.quantisation import Quantised, quantise_graph
from mer_calibration.graph.saturation import Certificate, certify
from mer_calibration.graph.storage import find_stored_weights, halve_weights
from mer_calibration.graph.zero_point_folding import find_foldable, fold_zero_points
from mer_calibration.measure.histogram import Histogram
from mer_calibration.measure.noise import FloatAnswers, LogitNoise, Noise, Window
from mer_calibration.measure.observation import Probe, observe
from mer_calibration.measure.observers import find_range
from mer_calibration.ranges import DialectRanges, Ranges, hash_graph
from mer_calibration.recipe import Feeds, Recipe, calibrate_graphs
from mer_calibration.report.layers import Layer, compare_tensors, format_layers, layers_to_dicts

__all__ = [
    "DIALECTS",
    "CalibrationError",
    "Certificate",
    "Dialect",
    "DialectError",
    "DialectRanges",
    "Feeds",
    "FloatAnswers",
    "Grid",
    "Histogram",
    "Layer",
    "LogitNoise",
    "Noise",
    "Probe",
    "Quantised",
    "Range",
    "Ranges",
    "Recipe",
    "SaturationError",
    "Window",
    "asymmetric_grid",
    "calibrate_graphs",
    "certify",
    "check_dialect",
    "compare_tensors",
    "find_foldable",
    "find_range",
    "find_stored_weights",
    "fold_zero_points",
    "format_layers",
    "halve_weights",
    "hash_graph",
    "layers_to_dicts",
    "observe",
    "place",
    "quantise_graph",
    "shorten_names",
    "symmetric_grid",
    "weight_scales",
]
