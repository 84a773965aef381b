"""What quantisation did to each layer, as a table."""
