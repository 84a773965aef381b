"""Reads what ``mer-run --json`` prints of a stream, and tells when the emotion changes.

mer-run ia-compact-int8 /dev/video0 --microphone --json | python examples/json_consumer.py

Each line is one JSON object: an event has ``time`` and ``label``, a source's notice ``state``.
"""

import json
import sys
from collections.abc import Iterator

#: An emotion counts from this probability on.
SURE = 0.5


def changes(lines: Iterator[str]) -> Iterator[str]:
    """A sentence for each change of a face's emotion, and for each trouble of a source."""
    last: dict[int | None, str | None] = {}
    for line in lines:
        message = json.loads(line)
        if "state" in message:
            yield f"{message['source']}: {message['state']}"
        if "label" not in message:
            continue
        label, track = message["label"], message.get("track")
        if label is not None and message["probabilities"][label] < SURE:
            continue  # not sure: the last emotion stands
        if label != last.get(track):
            last[track] = label
            who = "somebody" if track is None else f"face {track}"
            missing = [kind for kind in ("face", "voice") if not message[kind]]
            without = f" (no {' and no '.join(missing)})" if missing else ""
            yield f"{message.get('time', 0):8.2f} s  {who}: {label or 'nothing'}{without}"


if __name__ == "__main__":
    for sentence in changes(iter(sys.stdin)):
        print(sentence, flush=True)
