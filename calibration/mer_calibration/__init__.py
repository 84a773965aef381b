"""Observers and quantisation ranges."""
