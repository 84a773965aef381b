"""Make a small corpus in RAVDESS's layout, to try the whole path on: docs/tutorials/first-model.md.

    python scripts/make_sample_corpus.py sample-corpus

Every clip is the sample clip with a tint and a pitch of its own for each class. That is no emotion,
only something that a model can learn in a minute. What a model learns there is of no use.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from make_sample_clip import draw_frame, make_clip, synthesise_voice
from mer_runtime.console import Command, progress
from mer_runtime.spec import RAVDESS_LABELS

#: Four that train, one that tests, one that validates (``mer.data.splits``).
ACTORS = (1, 2, 3, 4, 5, 11)
REPETITIONS = (1,)
#: What a tint takes away from a channel, at most 1.
DIMMED = 0.45
#: Light at the darker side of a picture, of 1.
LEAST_LIGHT = 0.5


@cache
def draw_once(time: float) -> NDArray[np.uint8]:
    """As ``draw_frame``; the same frames are in every clip."""
    return draw_frame(time)


def draw_tinted(time: float, emotion: int, actor: int) -> NDArray[np.uint8]:
    """The sample clip's picture in the colour of a class, (360, 640, 3) RGB.

    Every other actor is the mirrored picture, and each is lit in a way of its own: a calibration
    on crops that are all alike would promise more than others can hold.
    """
    channels = [emotion & 4, emotion & 2, emotion & 1]
    gains = np.where(channels, 1.0, DIMMED + 0.02 * (actor % 3))
    picture = draw_once(time)[:, :: -1 if actor % 2 else 1]
    across = np.linspace(1.0, LEAST_LIGHT, picture.shape[1])[:: 1 if actor % 4 < 2 else -1]
    light = across[:, None] ** (1 + actor % 3)
    return np.asarray(picture * light * gains, np.uint8)


def make_corpus(root: Path) -> int:
    """Write a clip for each class, actor and repetition under ``root``; gives how many.

    Raises:
        OutputError: a file can't be written.
    """
    names = [(a, e, r) for a in ACTORS for e in range(len(RAVDESS_LABELS)) for r in REPETITIONS]
    with progress(names, label="Making clips") as bar:
        for actor, emotion, repetition in bar:
            folder = root / f"Actor_{actor:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            pitch = 0.6 * 1.15**emotion * (1 + 0.01 * (actor % 3))
            make_clip(
                folder / f"01-01-{emotion + 1:02d}-01-01-{repetition:02d}-{actor:02d}.mp4",
                partial(draw_tinted, emotion=emotion, actor=actor),
                synthesise_voice(pitch, seed=100 * actor + repetition),
                preset="ultrafast",
            )
    return len(names)


@click.command(cls=Command)
@click.argument("root", type=click.Path(file_okay=False, path_type=Path))
def main(root: Path) -> None:
    """Write a corpus of 48 clips under ROOT.

    \b
    Example:
        python scripts/make_sample_corpus.py sample-corpus
    """
    click.echo(f"{make_corpus(root)} clips in {root}")


if __name__ == "__main__":
    main()
