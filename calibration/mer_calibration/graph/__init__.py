"""Int8 graphs: where pairs of QuantizeLinear and DequantizeLinear stand, on which grids."""
