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

#: Two that train, one that tests, one that validates (``mer.data.splits``).
ACTORS = (1, 2, 5, 11)
REPETITIONS = (1,)
#: What a tint takes away from a channel, at most 1.
DIMMED = 0.45


@cache
def draw_once(time: float) -> NDArray[np.uint8]:
    """As ``draw_frame``; the same frames are in every clip."""
    return draw_frame(time)


def draw_tinted(time: float, emotion: int, actor: int) -> NDArray[np.uint8]:
    """The sample clip's picture in the colour of a class, (360, 640, 3) RGB."""
    channels = [emotion & 4, emotion & 2, emotion & 1]
    gains = np.where(channels, 1.0, DIMMED + 0.02 * (actor % 3))
    return np.asarray(draw_once(time) * gains, np.uint8)


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
    """Write a corpus of 32 clips under ROOT.

    \b
    Example:
        python scripts/make_sample_corpus.py sample-corpus
    """
    click.echo(f"{make_corpus(root)} clips in {root}")


if __name__ == "__main__":
    main()
