"""The page in a real browser: Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

import av
import numpy as np
import pytest

from mer_runtime.inputs.face import Box
from mer_runtime.live.page import PageServer
from mer_runtime.live.sources import Picture
from mer_runtime.stream import StreamEvent

pytestmark = pytest.mark.browser

LABELS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
#: A name and a reason that would be markup, were they not escaped.
NASTY = "<img src=x onerror=\"document.title='broken'\">"
GREETING = {
    "bundle": NASTY,
    "backend": "engine 1",
    "sources": [NASTY],
    "labels": LABELS,
    "window": 3.6,
}


@pytest.fixture
def page() -> Iterator[PageServer]:
    server = PageServer(0, "127.0.0.1", GREETING)
    yield server
    server.close()


def answer(time: float, label: str | None = "happy", **changes: Any) -> dict[str, Any]:
    rest = 0.3 / (len(LABELS) - 1)
    probabilities = {name: 0.7 if name == label else rest for name in LABELS} if label else {}
    given: dict[str, Any] = {
        "end": time,
        "label": label,
        "probabilities": probabilities,
        "face": True,
        "voice": True,
        "settled": True,
        "filled": 1.0,
        "faces_found": 15,
        "box": Box(10, 10, 20, 20),
        "track": 1,
        "age": 0.042,
        "dropped": 3,
    }
    return StreamEvent(**(given | changes)).to_dict()


def text(name: str) -> str:
    return f"return document.getElementById('{name}').textContent"


def test_answers_and_pictures_are_shown(browser: Any, page: PageServer) -> None:
    grey = np.full((48, 64, 3), 90, np.uint8)
    for i in range(20):
        page.board.tell("answer", answer(0.48 * (i + 1), age=0.3 if i == 0 else 0.042))
    browser.open(page.url)
    browser.wait_for(text("label"), "happy")
    # Chromium shows a picture when the next one begins.
    deadline = monotonic() + 30
    while browser.run("return document.getElementById('picture').naturalWidth") != 64:
        page.board.show(Picture(av.VideoFrame.from_ndarray(grey, format="rgb24"), 0.0), ())
        assert monotonic() < deadline
        sleep(0.1)
    assert browser.run("return document.getElementById('picture').hidden") is False
    assert browser.run(text("heard")) == "from face and voice"
    assert browser.run(text("covers")) == "covers the last 3.6 s"
    assert browser.run(text("age")) == "42 ms"
    # Of 20 ages, the 19th when sorted.
    assert browser.run(text("late")) == "42 ms"
    assert browser.run(text("dropped")) == "3"
    bars = browser.run(
        "return [...document.querySelectorAll('.bar')].map((bar) => bar.textContent)"
    )
    assert bars[LABELS.index("happy")] == "happy70.0 %"
    assert len(bars) == len(LABELS)
    # The newest column's middle is happy's colour, 0x_e9b44c.
    pixel = "const c = document.getElementById('history'); return [...c.getContext('2d')"
    pixel += ".getImageData(c.width - 4, c.height / 2, 1, 1).data]"
    assert browser.run(pixel) == [0xE9, 0xB4, 0x4C, 255]
    # And it goes on.
    page.board.tell("answer", answer(20.0, "sad", voice=False))
    browser.wait_for(text("label"), "sad")
    assert browser.run(text("heard")) == "from face, no voice"
    page.board.tell("answer", answer(20.5, None, face=False, voice=False, box=None, track=None))
    browser.wait_for(text("label"), "neither face nor voice")
    assert browser.problems() == []


def test_names_are_text(browser: Any, page: PageServer) -> None:
    notice = {"source": NASTY, "state": "lost", "reason": NASTY, "time": 1.5}
    page.board.tell("source", notice)
    browser.open(page.url)
    browser.wait_for(text("state"), "source lost")
    assert browser.run(text("about")) == f"{NASTY} · engine 1 · {NASTY}"
    assert browser.run(text("log")) == f"1.5 s{NASTY} lost: {NASTY}"
    assert browser.run("return document.title") == "mer-run, live"
    page.board.tell("source", notice | {"state": "reopened", "reason": ""})
    browser.wait_for(text("state"), "live")
    assert browser.problems() == []


def test_one_of_several_faces_can_be_chosen(browser: Any, page: PageServer) -> None:
    page.board.tell("answer", answer(1.0, "happy", track=1))
    page.board.tell("answer", answer(1.0, "angry", track=2))
    browser.open(page.url)
    buttons = "return [...document.querySelectorAll('#tracks button')].map((b) => b.textContent)"
    browser.wait_for(buttons, ["face 1", "face 2"])
    assert browser.run(text("label")) == "happy"
    browser.run("document.querySelectorAll('#tracks button')[1].click()")
    assert browser.run(text("label")) == "angry"
    # When that face has gone for a while, the one that is left is shown, without buttons.
    page.board.tell("answer", answer(5.0, "sad", track=1))
    browser.wait_for(text("label"), "sad")
    assert browser.run("return document.getElementById('tracks').offsetHeight") == 0


@pytest.mark.parametrize("width", [320, 700, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_and_wide_light_and_dark(
    browser: Any, page: PageServer, width: int, scheme: str
) -> None:
    page.board.tell("answer", answer(1.0))
    page.board.tell("source", {"source": "x" * 200, "state": "lost", "reason": "", "time": 0})
    browser.show(width, scheme)
    try:
        browser.open(page.url)
        browser.wait_for(text("label"), "happy")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        tops = "return [...document.querySelectorAll('main > section')].slice(0, 2)"
        tops += ".map((s) => s.getBoundingClientRect().top)"
        left, right = browser.run(tops)
        assert (left == right) is (width > 760)
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        ink = browser.run("return getComputedStyle(document.body).color")
        assert browser.contrast(ground, ink) > 7  # WCAG's AAA
        dim = browser.run("return getComputedStyle(document.querySelector('dt')).color")
        card = "return getComputedStyle(document.querySelector('section')).backgroundColor"
        assert browser.contrast(browser.run(card), dim) > 4.5  # AA
        assert (browser.luminance(ground) > 0.5) is (scheme == "light")
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")
        browser.command("Emulation.setEmulatedMedia", features=[])


def test_a_new_session_is_shown_after_the_end(browser: Any) -> None:
    """As after ``systemctl restart``: the page is the old one, the server another."""
    first = PageServer(0, "127.0.0.1", GREETING)
    browser.open(first.url)
    first.board.tell("answer", answer(1.0, "sad"))
    browser.wait_for(text("label"), "sad")
    first.close()
    browser.wait_for(text("state"), "the session has ended, waiting for the next")
    dimmed = "return getComputedStyle(document.getElementById('label')).opacity"
    assert browser.run(dimmed) == "0.4"
    port = int(first.url.rstrip("/").rpartition(":")[2])
    second = PageServer(port, "127.0.0.1", GREETING | {"labels": ["calm", "glad"]})
    try:
        browser.wait_for(text("state"), "live")
        assert browser.run(text("label")) == "\N{EN DASH}"
        assert browser.run(dimmed) == "1"
        told = answer(1.0) | {"label": "glad", "probabilities": {"calm": 0.2, "glad": 0.8}}
        second.board.tell("answer", told)
        browser.wait_for(text("label"), "glad")
        assert browser.run("return document.querySelectorAll('.bar').length") == 2
    finally:
        second.close()


def test_sound_alone(browser: Any, page: PageServer) -> None:
    """No place for a picture that never comes; what is there has the room."""
    page.board.announce(video=False, audio=True)
    notes = ["there is no sound in this window"]
    told = answer(0.96, face=False, box=None, track=None, filled=0.267) | {"notes": notes}
    page.board.tell("answer", told)
    browser.show(1300, "light")
    try:
        browser.open(page.url)
        browser.wait_for(text("heard"), "from voice, no face")
        assert browser.run(text("covers")) == "covers the last 1.0 s"
        assert browser.run(text("notes")) == notes[0]
        wide = "return [...document.querySelectorAll('main > section')]"
        wide += ".map((s) => s.offsetWidth)"
        stage, shown, history, *_ = browser.run(wide)
        assert (stage, shown) == (0, history)
        assert browser.run("return document.getElementById('faces').offsetHeight") == 0
        # A camera that comes with the next session has its place.
        page.board.announce(video=True, audio=True)
        browser.wait_for("return document.getElementById('stage').offsetWidth > 0", True)
        assert browser.problems() == []
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")
        browser.command("Emulation.setEmulatedMedia", features=[])
