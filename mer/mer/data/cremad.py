"""CREMA-D's file names (Cao et al. 2014): 91 actors, twelve sentences, six emotions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mer.data.recording import Listing, Recording

LAYOUT = "ACTOR_SENTENCE_EMOTION_LEVEL.flv|mp4|wav, such as VideoFlash/1001_DFA_ANG_XX.flv"

#: CREMA-D's names of emotions, and ours, in the order that RAVDESS's have.
EMOTIONS = {
    "NEU": "neutral",
    "HAP": "happy",
    "SAD": "sad",
    "ANG": "angry",
    "FEA": "fearful",
    "DIS": "disgust",
}
#: Suffixes of its sound files. The same utterances lie beside them as videos, which have sound.
SOUND = (".wav", ".mp3")

_NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX|X)", re.IGNORECASE)


def read_cremad(paths: Iterable[Path]) -> Listing:
    """Recordings among ``paths``, by their file names alone.

    An utterance is one row: its video, with the sound file as its voice where the video has none;
    else the sound file alone. The same name in several folders counts once.
    """
    utterances: dict[str, dict[bool, Path]] = {}
    foreign = 0
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        if match is None or match[3].upper() not in EMOTIONS:
            foreign += 1
            continue
        sound = path.suffix.lower() in SOUND
        utterances.setdefault(path.stem.upper(), {}).setdefault(sound, path)
    names = list(EMOTIONS)
    recordings = []
    for name, files in utterances.items():
        actor, _, emotion, level = name.split("_")
        recordings.append(
            Recording(
                id=name,
                path=files[min(files)],
                audio_path=files[True] if len(files) > 1 else None,
                actor=int(actor),
                emotion=names.index(emotion),
                intensity=2 if level == "HI" else 1,
            )
        )
    labels = tuple(EMOTIONS.values())
    return Listing(tuple(recordings), labels, "actors", {"other names": foreign})
