"""A timeline's files: CSV and JSON row by row, a picture from few numbers of each."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mer_runtime.errors import OutputError
from mer_runtime.files import replacing
from mer_runtime.stream.event import StreamEvent
from mer_runtime.timeline.chart import Chart
from mer_runtime.timeline.reading import Timeline

#: Columns before the probabilities.
COLUMNS = ("start", "end", "face_number", "label", "settled", "face", "voice", "people")


def write_timeline(
    path: str | Path, timeline: Timeline, told: Callable[[StreamEvent], None] | None = None
) -> None:
    """Read a timeline to its end, and write its answers as .csv, .json or .png.

    Args:
        told: called with each answer.

    Raises:
        OutputError: the file can't be written, or its name ends otherwise.
        MerError: what reading the clip raises; no file is left then.
    """
    path = Path(path)
    write = KINDS.get(path.suffix.lower())
    if write is None:
        raise OutputError(path, f"a timeline is a {', '.join(KINDS)}")
    with replacing(path) as part, timeline:
        write(part, timeline, told or _ignore)


def _ignore(event: StreamEvent) -> None:
    pass


def _write_csv(path: Path, timeline: Timeline, told: Callable[[StreamEvent], None]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *timeline.labels])
        for event in timeline:
            told(event)
            row = _describe(event)
            shares = row.pop("probabilities")
            writer.writerow(
                [
                    *(_cell(row[name]) for name in COLUMNS),
                    *(shares.get(label, "") for label in timeline.labels),
                ]
            )


def _write_json(path: Path, timeline: Timeline, told: Callable[[StreamEvent], None]) -> None:
    with path.open("w", encoding="utf-8") as file:
        head = {
            "source": timeline.source,
            "step": round(timeline.step, 6),
            "window": round(timeline.window, 6),
            "labels": list(timeline.labels),
        }
        file.write(f'{json.dumps(head)[:-1]}, "answers": [')
        _write_rows(file, timeline, told)
        tail = {"summary": timeline.summary.to_dict(), "notes": timeline.notes}
        file.write(f"\n], {json.dumps(tail)[1:]}\n")


def _write_rows(file: IO[str], timeline: Timeline, told: Callable[[StreamEvent], None]) -> None:
    between = "\n"
    for event in timeline:
        told(event)
        file.write(f"{between}{json.dumps(_describe(event))}")
        between = ",\n"


def _write_png(path: Path, timeline: Timeline, told: Callable[[StreamEvent], None]) -> None:
    chart = Chart(timeline.labels, timeline.window, timeline.step, by_face=timeline.faces == "all")
    for event in timeline:
        told(event)
        chart.add(event)
    path.write_bytes(chart.encode())


def _describe(event: StreamEvent) -> dict[str, Any]:
    """What of an event is about the clip: no latency, no drops."""
    given = event.to_dict()
    row = {name: given[name] for name in ("start", "end", "label", "probabilities", "settled")}
    row |= {name: given[name] for name in ("face", "voice", "people", "box")}
    return row | {"face_number": event.track}


def _cell(value: Any) -> Any:
    """Yes and no as 1 and 0, nothing as an empty cell."""
    return int(value) if isinstance(value, bool) else "" if value is None else value


#: How each kind of file is written, by its ending.
KINDS = {".csv": _write_csv, ".json": _write_json, ".png": _write_png}
