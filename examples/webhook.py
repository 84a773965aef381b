"""Reads what ``mer-run --json`` prints of a stream, and posts changes of emotion to a URL.

mer-run ia-compact-int8 /dev/video0 --microphone --json | python examples/webhook.py http://host/hook

The body is the JSON line of the answer with which an emotion began. A server that can't be reached
is told on standard error, and the stream goes on.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

#: An emotion counts from this probability on.
SURE = 0.5
#: Seconds that a server may take: answers wait in the pipe meanwhile.
TIMEOUT = 5.0


def find_changes(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The answers with which a face's emotion, or that of a voice without one, began."""
    last: dict[int | None, str] = {}
    for line in lines:
        answer = json.loads(line)
        label = answer.get("label")
        if label is None or answer["probabilities"][label] < SURE:
            continue
        if last.get(answer["track"]) != label:
            last[answer["track"]] = label
            yield answer


def post(url: str, answer: dict[str, Any]) -> None:
    """Send an answer as JSON.

    Raises:
        OSError: the server can't be reached, or answers with an error.
    """
    head = {"Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(answer).encode(), head), timeout=TIMEOUT):
        pass


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: mer-run ... --json | python webhook.py URL")
    for change in find_changes(iter(sys.stdin)):
        try:
            post(sys.argv[1], change)
        except OSError as error:
            print(f"{sys.argv[1]}: {error}", file=sys.stderr, flush=True)
