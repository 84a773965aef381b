"""Graphs on integers: where pairs of QuantizeLinear and DequantizeLinear stand, on which grids."""
