"""The report of a run: one HTML file that needs nothing else, neither script nor network."""

from mer_bench.report.page import render_report

__all__ = ["render_report"]
