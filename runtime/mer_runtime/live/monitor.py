"""How a session is doing, for those who watch a service: health, metrics, a watchdog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from time import monotonic, time
from typing import Any, get_args

from mer_runtime.live.sources.captured import Notice, State
from mer_runtime.stream.event import StreamEvent
from mer_runtime.stream.statistics import StreamStatistics
from mer_runtime.version import __version__

#: Seconds: the upper edges of the latency histogram's buckets.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
#: Seconds, beyond a hop, that a session with an open source may take for an answer.
PATIENCE = 10.0
#: States of a source that gives something.
UP = ("opened", "resumed", "reopened")
#: What Prometheus asks for: its text format.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


class Monitor:
    """Told by a session's threads what happens, asked by any other thread.

    Args:
        hop: seconds from answer to answer.
        statistics: the stream's counters.
        not_recorded: pictures and chunks of sound that the recorder left out.
        about: the bundle and what runs it, by name.
    """

    def __init__(
        self,
        hop: float,
        statistics: Callable[[], StreamStatistics],
        not_recorded: Callable[[], int],
        about: Labels,
    ) -> None:
        self._patience = PATIENCE + hop
        self._statistics, self._not_recorded = statistics, not_recorded
        self._about = {"version": __version__, **about}
        self._lock = Lock()
        self._sources: dict[str, State] = {}
        self._losses: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._ages = [0] * (len(BUCKETS) + 1)
        self._age_sum = 0.0
        self._hops, self._hop_time = 0, -1.0
        self._since: float | None = None  # monotonic: when something was last to be answered
        self._answered: tuple[float, float] | None = None  # monotonic, and on the calendar
        self._ended = False

    def take_event(self, event: StreamEvent) -> None:
        """Count an answer."""
        with self._lock:
            self._answers[event.label or ""] += 1
            if event.time != self._hop_time:  # several faces have one hop
                self._hops, self._hop_time = self._hops + 1, event.time
            place = next((i for i, edge in enumerate(BUCKETS) if event.age <= edge), len(BUCKETS))
            self._ages[place] += 1
            self._age_sum += event.age
            self._since = monotonic()
            self._answered = self._since, time()

    def take_notice(self, notice: Notice) -> None:
        """Follow a source's state."""
        with self._lock:
            self._sources[notice.source] = notice.state
            if notice.state in ("lost", "stalled"):
                self._losses[notice.source] += 1
            if notice.state in UP:
                self._since = monotonic()

    def end(self) -> None:
        """The session is over."""
        self._ended = True

    @property
    def stuck(self) -> bool:
        """Whether sources give something, and yet no answer comes for ten seconds and a hop."""
        with self._lock:
            up = any(state in UP for state in self._sources.values())
            return up and self._since is not None and monotonic() - self._since > self._patience

    def describe_health(self) -> dict[str, Any]:
        """JSON-ready data.

        ``status`` is ``ok``; ``starting`` before a source was heard of; ``waiting`` for a source
        that isn't there, was lost or is silent; ``stuck`` where answers don't come; ``ended``.
        ``answer_age`` are the seconds since the last answer, null before the first. ``sources``
        has each one's last state by its name.
        """
        stuck = self.stuck
        with self._lock:
            sources, answered = dict(self._sources), self._answered
        if self._ended:
            status = "ended"
        elif not sources:
            status = "starting"
        elif stuck:
            status = "stuck"
        else:
            status = "ok" if all(state in UP for state in sources.values()) else "waiting"
        age = None if answered is None else round(monotonic() - answered[0], 3)
        return {"status": status, "answer_age": age, "sources": sources}

    def render_metrics(self) -> str:
        """All metrics in Prometheus' text format, version 0.0.4."""
        return "".join(f"{line}\n" for line in self._list_lines())

    def _list_lines(self) -> Iterator[str]:
        done = self._statistics()
        with self._lock:
            sources, losses = dict(self._sources), dict(self._losses)
            answers, ages, age_sum = dict(self._answers), list(self._ages), self._age_sum
            hops, answered = self._hops, self._answered
        yield from _metric("info", "gauge", "What runs here.", [(self._about, 1)])
        for name, value, told in (
            ("hops", hops, "Hops that were answered."),
            ("hops_skipped", done.skipped, "Hops without an answer: inference was behind."),
            ("frames", done.frames, "Frames taken in."),
            ("frames_used", done.used, "Frames that a slot took."),
            ("frames_dropped", done.dropped, "Used frames dropped: inference was behind."),
            ("sound_gaps", done.gaps, "Places where samples are missing."),
            ("not_recorded", self._not_recorded(), "Pictures and chunks the recorder left out."),
        ):
            yield from _metric(f"{name}_total", "counter", told, [({}, value)])
        labelled = [({"label": label}, count) for label, count in sorted(answers.items())]
        told = "Answers by label; empty where there was neither face nor voice."
        yield from _metric("answers_total", "counter", told, labelled)
        told = "CPU time of the engine's thread by stage."
        spent = [({"stage": stage}, seconds) for stage, seconds in done.cpu_seconds.items()]
        yield from _metric("cpu_seconds_total", "counter", told, spent)
        yield from _histogram(ages, age_sum)
        if answered is not None:
            told = "When the last answer came, in seconds since 1970."
            yield from _metric("last_answer_timestamp_seconds", "gauge", told, [({}, answered[1])])
        up = [({"source": name}, int(state in UP)) for name, state in sources.items()]
        yield from _metric("source_up", "gauge", "Whether a source gives something.", up)
        states = [
            ({"source": name, "state": each}, int(each == state))
            for name, state in sources.items()
            for each in get_args(State)
        ]
        yield from _metric("source_state", "gauge", "1 for the state a source is in.", states)
        lost = [({"source": name}, losses.get(name, 0)) for name in sources]
        told = "How often a source was lost or fell silent."
        yield from _metric("source_losses_total", "counter", told, lost)


def _metric(
    name: str, kind: str, told: str, values: Iterable[tuple[Labels, float]]
) -> Iterator[str]:
    yield f"# HELP mer_{name} {told}"
    yield f"# TYPE mer_{name} {kind}"
    for labels, value in values:
        yield f"mer_{name}{_format_labels(labels)} {_format(value)}"


def _histogram(ages: list[int], age_sum: float) -> Iterator[str]:
    name = "mer_latency_seconds"
    yield f"# HELP {name} From the arrival of a window's last sample or frame to its answer."
    yield f"# TYPE {name} histogram"
    below = 0
    for edge, count in zip((*map(_format, BUCKETS), "+Inf"), ages, strict=True):
        below += count
        yield f'{name}_bucket{{le="{edge}"}} {below}'
    yield f"{name}_sum {_format(age_sum)}"
    yield f"{name}_count {below}"


def _format(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(round(value, 6))


def _format_labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
