"""What is in a bundle's graphs, layer by layer."""
