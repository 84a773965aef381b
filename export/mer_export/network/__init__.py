"""The network as it is deployed: batch norms folded, channels in blocks, two ONNX graphs."""
