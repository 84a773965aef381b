"""The report: what its charts show, and how it looks in a real browser (Chromium)."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from mer_bench import render_report
from mer_bench.subject import TOTAL
from mer_bench.summary import summarise

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


def read_marks(text: str, mark: str) -> list[tuple[float, float]]:
    """Where the charts draw what bears a mark: (x, y), y downwards."""
    (group,) = re.findall(rf'<g id="{mark}">.*?</g>\s*</g>', text, re.DOTALL)
    places = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', group)
    return [(float(x), float(y)) for x, y in places]


def test_charts_show_what_was_measured(report: Path, run: dict[str, Any]) -> None:
    text = report.read_text(encoding="utf-8")
    # The points lie where their figures say: the first is slowest and most often right.
    points = [read_marks(text, f"point-{place}")[0] for place in range(3)]
    assert points[0][0] > points[1][0]
    assert points[0][1] < points[1][1] < points[2][1]
    assert [len(read_marks(text, f"times-{place}")) for place in range(3)] == [160] * 3
    for one in run["contenders"]:
        mean = one["single_stream"]["summary"]["decode"]["mean"]
        assert f"<title>decode {mean:.2f} ms</title>" in text
    assert text.count("<td style") == 3 * 64, "cells of confusion matrices"
    assert NASTY not in text
    assert not re.search("#0000..", text), "every colour is the page's"


def test_without_accuracy_and_profiles(make_run: Any) -> None:
    bare = make_run({"a": 50.0})
    bare["contenders"][0]["profile"] = None
    text = render_report(bare)
    assert "mer-bench --cache CACHE measures it" in text
    assert "No engine here tells" in text
    assert "Confusion" not in text


def test_busy_machine_and_few_samples_are_told(make_run: Any) -> None:
    quiet = make_run({"a": 50.0})
    assert "caveat" not in render_report(quiet).partition("</style>")[2]
    busy = copy.deepcopy(quiet)
    busy["machine"]["before"] = {"load": [3.2, 1.0, 0.5], "temperature": "unknown"}
    (one,) = busy["contenders"]
    few = one["single_stream"]["times"][TOTAL][:4]
    summary = summarise([time for turn in few for time in turn]).to_dict()
    one["single_stream"]["summary"][TOTAL] |= summary
    text = render_report(busy)
    assert "The machine was busy before the run: load 3.2 on 2 cores." in text
    assert "Few samples: 16 times of a are too few for p50, p90, p95, p99" in text


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
    # No drawing leaves its frame.
    outside = "return [...document.querySelectorAll('svg')].filter((s) => {"
    outside += "const b = s.getBBox(), v = s.viewBox.baseVal;"
    outside += "return b.x < 0 || b.y < 0 || b.x + b.width > v.width || b.y + b.height > v.height;"
    outside += "}).map((s) => s.getAttribute('aria-label'))"
    assert browser.run(outside) == []


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
    assert browser.contrast(card, colour("svg [id^=xtick] text", "fill")) > 4.5  # AA
    for number in range(6):
        # Of parts that mean something, WCAG wants 3.
        assert browser.contrast(card, colour(f".legend .c{number}", "backgroundColor")) > 3
