"""RAVDESS's file names (Livingstone & Russo 2018), spoken and sung."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from mer.data.recording import Listing, Recording
from mer_runtime.spec import RAVDESS_LABELS

# First field of a file name.
FULL_AV, VIDEO_ONLY, AUDIO_ONLY = 1, 2, 3
# Second field of a file name.
SPEECH, SONG = 1, 2

LAYOUT = "Actor_NN/MM-VC-EM-IN-ST-RE-AC.mp4|wav, such as Actor_05/01-01-03-01-02-01-05.mp4"

Vocal = Literal["speech", "song", "both"]
VOCALS: tuple[Vocal, ...] = get_args(Vocal)
#: The second field of what is taken.
_CHANNELS = {"speech": (SPEECH,), "song": (SONG,), "both": (SPEECH, SONG)}
#: Nobody sings disgusted or surprised.
SUNG = 6

_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")


def read_ravdess(paths: Iterable[Path], vocal: Vocal = "speech") -> Listing:
    """Recordings among ``paths``, by their file names alone.

    RAVDESS publishes most utterances three times: with face and voice (01-), silent (02-) and
    without a face (03-). Each becomes one row: the 01- file, else 02- with 03- as its voice, else
    03- alone. The same name in several folders counts once. Songs have six of the eight emotions:
    alone, they are a corpus of six classes.
    """
    utterances: dict[tuple[int, ...], dict[int, Path]] = {}
    passed = {"songs": 0, "spoken": 0, "other names": 0}
    for path in paths:
        fields = parse_name(path.stem)
        if fields is None:
            passed["other names"] += 1
        elif fields[1] in _CHANNELS[vocal]:
            utterances.setdefault(fields[1:], {}).setdefault(fields[0], path)
        else:
            passed["songs" if fields[1] == SONG else "spoken"] += 1
    recordings = [_build_recording(key, files) for key, files in utterances.items()]
    labels = RAVDESS_LABELS[:SUNG] if vocal == "song" else RAVDESS_LABELS
    return Listing(tuple(recordings), labels, "list", passed)


def parse_name(stem: str) -> tuple[int, int, int, int, int, int, int] | None:
    """RAVDESS's seven fields of a file's stem, or None where it isn't such a name.

    They are modality, vocal channel, emotion (from 1), intensity, statement, repetition, actor.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    modality, channel, emotion, intensity, statement, repetition, actor = map(int, match.groups())
    if (
        modality not in (FULL_AV, VIDEO_ONLY, AUDIO_ONLY)
        or channel not in (SPEECH, SONG)
        or not 1 <= emotion <= (SUNG if channel == SONG else len(RAVDESS_LABELS))
        or not {intensity, statement, repetition} <= {1, 2}
        or actor < 1
    ):
        return None
    return modality, channel, emotion, intensity, statement, repetition, actor


def _build_recording(key: tuple[int, ...], files: dict[int, Path]) -> Recording:
    _, emotion, intensity, _, _, actor = key
    modality = min(files)
    return Recording(
        id=files[modality].stem,
        path=files[modality],
        audio_path=None if modality == AUDIO_ONLY else files.get(AUDIO_ONLY),
        actor=actor,
        emotion=emotion - 1,
        intensity=intensity,
    )
