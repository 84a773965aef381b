"""A search on this machine for the bundle that fits a bound."""
