"""Recordings in RAVDESS's layout: found, named by their file names, one row an utterance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mer.errors import CorpusError
from mer_runtime.inputs.listing import MediaListing, list_media
from mer_runtime.spec import RAVDESS_LABELS

# First field of a file name.
FULL_AV, VIDEO_ONLY, AUDIO_ONLY = 1, 2, 3
# Second field of a file name.
SPEECH, SONG = 1, 2

LAYOUT = "Actor_NN/MM-VC-EM-IN-ST-RE-AC.mp4|wav, such as Actor_05/01-01-03-01-02-01-05.mp4"

_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")


@dataclass(frozen=True)
class Recording:
    """One utterance, and the files that hold its face and voice.

    The fields are RAVDESS's (Livingstone & Russo 2018): ``intensity`` 1 normal, 2 strong;
    ``statement`` and ``repetition`` 1 or 2; ``actor`` from 1. ``emotion`` counts from 0, an index
    into ``RAVDESS_LABELS``. ``id`` is the stem of ``path``. ``audio_path`` is the utterance's
    audio-only file where ``path`` is a video: the voice of a video without sound.
    """

    id: str
    path: Path
    audio_path: Path | None
    actor: int
    emotion: int
    intensity: int
    statement: int
    repetition: int


@dataclass(frozen=True)
class Listing:
    """What a folder holds: its utterances by id, and how many media files were passed over.

    ``songs`` are RAVDESS's sung recordings; ``foreign`` are media files with another name.
    ``left_out`` counts what isn't a media file, by reason (see ``list_media``).
    """

    recordings: tuple[Recording, ...]
    songs: int
    foreign: int
    left_out: Mapping[str, int]


def find_recordings(root: Path) -> list[Recording]:
    """The spoken utterances anywhere under ``root``, sorted by id (see ``list_corpus``)."""
    return list(list_corpus(root).recordings)


def list_corpus(root: Path) -> Listing:
    """Find RAVDESS's recordings anywhere under ``root`` by their file names alone.

    RAVDESS publishes most utterances three times: with face and voice (01-), silent (02-) and
    without a face (03-). Each becomes one row: the 01- file, else 02- with 03- as its voice, else
    03- alone. The same name in several folders counts once. Songs are left out.

    Raises:
        CorpusError: ``root`` isn't a folder, or no spoken recording is in it.
    """
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder: name the one that holds {LAYOUT}")
    utterances: dict[tuple[int, ...], dict[int, Path]] = {}
    songs = foreign = 0
    listing = list_media(root)
    for path in listing.clips:
        fields = parse_name(path.stem)
        if fields is None:
            foreign += 1
        elif fields[1] == SONG:
            songs += 1
        else:
            utterances.setdefault(fields[2:], {}).setdefault(fields[0], path)
    if not utterances:
        raise CorpusError(
            f"{root} holds no spoken recording ({songs} songs, {foreign} media files with other "
            f"names{_also(listing)}): expected RAVDESS's layout, {LAYOUT}"
        )
    recordings = [_build_recording(key, files) for key, files in utterances.items()]
    recordings.sort(key=lambda row: row.id)
    return Listing(tuple(recordings), songs, foreign, dict(listing.left_out))


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
        or not 1 <= emotion <= len(RAVDESS_LABELS)
        or not {intensity, statement, repetition} <= {1, 2}
        or actor < 1
    ):
        return None
    return modality, channel, emotion, intensity, statement, repetition, actor


def _build_recording(key: tuple[int, ...], files: dict[int, Path]) -> Recording:
    emotion, intensity, statement, repetition, actor = key
    modality = min(files)
    return Recording(
        id=files[modality].stem,
        path=files[modality],
        audio_path=None if modality == AUDIO_ONLY else files.get(AUDIO_ONLY),
        actor=actor,
        emotion=emotion - 1,
        intensity=intensity,
        statement=statement,
        repetition=repetition,
    )


def _also(listing: MediaListing) -> str:
    left_out = listing.describe_left_out()
    return f"; {left_out}" if left_out else ""
