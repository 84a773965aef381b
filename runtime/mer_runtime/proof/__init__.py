"""That an engine answers here as it did where the bundle was made: golden inputs, replayed."""
