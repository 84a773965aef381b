"""The report in a real browser: Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mer_bench.report import render_report

#: A name that would be markup, were it not escaped.
NASTY = "<img src=x onerror=\"document.title='broken'\">"


@pytest.fixture
def run(make_run: Any) -> dict[str, Any]:
    found: dict[str, Any] = make_run({"fp32": 80.0, NASTY: 40.0, "x" * 80: 41.0}, agreement=99.0)
    for place, one in enumerate(found["contenders"]):
        one["accuracy"] |= {"prec1": 70.0 - place}
    return found


@pytest.fixture
def report(run: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(render_report(run), encoding="utf-8")
    return file


def test_needs_nothing_else(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)


def test_without_accuracy_and_profiles(make_run: Any) -> None:
    bare = make_run({"a": 50.0})
    bare["contenders"][0]["profile"] = None
    text = render_report(bare)
    assert "mer-bench --cache CACHE measures it" in text
    assert "No engine here tells" in text
    assert "Confusion" not in text


@pytest.mark.browser
def test_what_is_shown(browser: Any, report: Path, run: dict[str, Any]) -> None:
    browser.show(1300, "light")
    browser.open(report.as_uri())
    assert browser.problems() == []
    assert browser.run("return document.title") == "mer-bench"
    assert browser.run("return document.querySelector('.advice').textContent") == run["advice"]
    titles = browser.run("return [...document.querySelectorAll('h2')].map((h) => h.textContent)")
    assert titles == [
        "Accuracy against latency",
        "Distribution of latencies",
        "Stages",
        "Layers, float against int8",
        "Figures",
        "Ratios",
        "Confusion matrices",
        "Device",
        "How it was measured",
    ]
    names = browser.run("return [...document.querySelectorAll('h3')].map((h) => h.textContent)")
    assert names == [one["name"] for one in run["contenders"]]
    # The points lie where their figures say: the first is slowest and most often right.
    points = browser.run(
        "return [...document.querySelectorAll('circle')].map((c) => [+c.getAttribute('cx'), "
        "+c.getAttribute('cy')])"
    )
    assert points[0][0] > points[1][0] and points[0][1] < points[1][1] < points[2][1]  # noqa: PT018
    # Every time has a stroke, and no drawing leaves its frame.
    strokes = browser.run("return document.querySelectorAll('line.thin').length")
    assert strokes == 3 * 160
    outside = "return [...document.querySelectorAll('svg')].filter((s) => {"
    outside += "const b = s.getBBox(), v = s.viewBox.baseVal;"
    outside += "return b.x < 0 || b.y < 0 || b.x + b.width > v.width || b.y + b.height > v.height;"
    outside += "}).map((s) => s.getAttribute('aria-label'))"
    assert browser.run(outside) == []
    cells = browser.run("return document.querySelectorAll('.confusion td').length")
    assert cells == 3 * 64


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_and_wide_light_and_dark(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    browser.show(width, scheme)
    browser.open(report.as_uri())
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    tops = "return [...document.querySelectorAll('section')].slice(0, 2)"
    tops += ".map((s) => s.getBoundingClientRect().top)"
    left, right = browser.run(tops)
    assert (left == right) is (width == 1300)

    def colour(selector: str, what: str = "color") -> str:
        found = f"getComputedStyle(document.querySelector('{selector}')).{what}"
        return str(browser.run(f"return {found}"))

    card = colour("section", "backgroundColor")
    assert (browser.luminance(card) > 0.5) is (scheme == "light")
    assert browser.contrast(card, colour("section h2")) > 7  # WCAG's AAA
    assert browser.contrast(card, colour("svg .tick", "fill")) > 4.5  # AA
    for number in range(6):
        # Of parts that mean something, WCAG wants 3.
        assert browser.contrast(card, colour(f".legend .c{number}", "backgroundColor")) > 3
