"""What a service tells those who watch it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mer_runtime.live import monitor as module
from mer_runtime.live.monitor import Monitor
from mer_runtime.live.sources import Notice
from mer_runtime.stream import StreamEvent, StreamStatistics

NASTY = 'a\\b"c\nd{e="f"} 1'


def answer(time: float, **changes: Any) -> StreamEvent:
    given: dict[str, Any] = {
        "end": time,
        "label": "happy",
        "probabilities": {"happy": 1.0},
        "face": True,
        "voice": True,
        "settled": True,
        "filled": 1.0,
        "faces_found": 15,
        "box": None,
        "track": 1,
        "age": 0.04,
        "dropped": 0,
    }
    return StreamEvent(**(given | changes))


@pytest.fixture
def statistics() -> StreamStatistics:
    return StreamStatistics(frames=90, used=15, dropped=2, skipped=1, gaps=3)


@pytest.fixture
def monitor(statistics: StreamStatistics) -> Monitor:
    return Monitor(0.48, lambda: statistics, lambda: 7, {"bundle": NASTY})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Whose only element is the time."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def read(monitor: Monitor) -> dict[tuple[str, ...], float]:
    """Values by name and labels, as Prometheus' own parser reads them."""
    families = text_string_to_metric_families(monitor.render_metrics())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_are_prometheus_own(monitor: Monitor) -> None:
    monitor.take_notice(Notice(NASTY, "opened", "", 0.1))
    monitor.take_event(answer(0.48, age=0.01))
    monitor.take_event(answer(0.96, track=1, age=0.3))
    monitor.take_event(answer(0.96, track=2, age=0.3, label="sad"))
    monitor.take_event(answer(1.44, label=None, age=9.0))
    monitor.take_notice(Notice(NASTY, "lost", "why", 2.0))
    found = read(monitor)
    assert found["mer_info", "0.1.0", NASTY] == 1
    assert found["mer_hops_total",] == 3
    assert found["mer_hops_skipped_total",] == 1
    assert found["mer_frames_total",] == 90
    assert found["mer_frames_dropped_total",] == 2
    assert found["mer_not_recorded_total",] == 7
    assert [found["mer_answers_total", label] for label in ("happy", "sad", "")] == [2, 1, 1]
    assert [
        found["mer_latency_seconds_bucket", edge] for edge in ("0.01", "0.25", "0.5", "5.0")
    ] == [*(1, 1, 3, 3)]
    assert found["mer_latency_seconds_bucket", "+Inf"] == found["mer_latency_seconds_count",] == 4
    assert found["mer_latency_seconds_sum",] == pytest.approx(9.61)
    assert found["mer_source_up", NASTY] == 0
    assert found["mer_source_state", NASTY, "lost"] == 1
    assert found["mer_source_state", NASTY, "opened"] == 0
    assert found["mer_source_losses_total", NASTY] == 1
    assert found["mer_cpu_seconds_total", "face"] == 0


def test_health_goes_with_what_happens(monitor: Monitor, clock: list[float]) -> None:
    def status() -> str:
        return str(monitor.describe_health()["status"])

    assert status() == "starting"
    monitor.take_notice(Notice("camera", "waiting", "there is no such camera", 0.0))
    assert status() == "waiting"
    clock[0] += 1000
    assert not monitor.stuck, "a camera may be waited for as long as it takes"
    monitor.take_notice(Notice("camera", "opened", "", 1000.0))
    assert status() == "ok"
    monitor.take_event(answer(0.48))
    clock[0] += 10
    assert monitor.describe_health() == {
        "status": "ok",
        "answer_age": 10.0,
        "sources": {"camera": "opened"},
    }
    clock[0] += 1
    assert monitor.stuck
    assert status() == "stuck"
    monitor.take_event(answer(0.96))
    assert status() == "ok"
    monitor.take_notice(Notice("camera", "lost", "No such device", 20.0))
    clock[0] += 1000
    assert (status(), monitor.stuck) == ("waiting", False)
    monitor.take_notice(Notice("camera", "reopened", "", 30.0))
    assert (status(), monitor.stuck) == ("ok", False)
    monitor.end()
    assert status() == "ended"
