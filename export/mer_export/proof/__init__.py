"""That a bundle answers as the float model: golden inputs, the gate, the fallback to float."""
