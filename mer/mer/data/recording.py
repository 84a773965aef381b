"""What readers of corpora give: recordings with their labels, and what they passed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

#: How a corpus is divided: by the written list of RAVDESS's actors, by a rule over its own actors,
#: by a rule over clips, or as its table says.
Division = Literal["list", "actors", "clips", "table"]


@dataclass(frozen=True)
class Recording:
    """One utterance, and the files that hold its face and voice.

    Attributes:
        id: a name that no other one of the corpus has, and that a file can have.
        audio_path: a file with its voice; None where ``path`` has all there is.
        actor: a number from 1; 0 where nobody says who speaks.
        emotion: an index into the corpus's labels.
        intensity: RAVDESS's: 1 normal, 2 strong. 1 where it isn't known.
        own_sound: whether the sound of ``path`` goes before that of ``audio_path``.
        start, end: seconds from the file's beginning: the part that is the recording.
        split, fold: which it belongs to: ``train``, ``validation`` or ``test``, and 1 to 5. Empty
            and 0 where the written list of actors says it.
    """

    id: str
    path: Path
    audio_path: Path | None
    actor: int
    emotion: int
    intensity: int = 1
    own_sound: bool = True
    start: float = 0.0
    end: float = math.inf
    split: str = ""
    fold: int = 0


@dataclass(frozen=True)
class Listing:
    """What a corpus holds.

    Attributes:
        recordings: by id.
        labels: the names of its classes.
        passed_over: how many recordings aren't taken, by reason, such as "songs".
        left_out: how many files aren't media, by reason (see ``list_media``).
        warnings: what is wrong with it as a whole.
    """

    recordings: tuple[Recording, ...]
    labels: tuple[str, ...]
    division: Division
    passed_over: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
