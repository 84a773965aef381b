"""Answers scored: prec1, prec5, UAR, confidence, two models compared clip by clip."""
