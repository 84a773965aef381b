"""Count voices and faces that are missed, and what is taken for one, and write the tables.

    python scripts/measure_presence.py ravdess cache/ravdess

asks of the test actors' clips whether a voice and a face are there, as they are and spoilt
(``robustness.py``), and of sounds that are no voice (``voiceless.py``) and of frozen pictures.
Writes docs/presence.json and the tables made of it. No figure of the rule was chosen on these
actors.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import click
import cv2
import numpy as np
from numpy.typing import NDArray

from make_tables import write_all_tables
from measure_robustness import read_talkers
from mer.data.cache import Cache
from mer.data.corpus import find_recordings
from mer.data.corruptions import Waveform, change_gain
from mer.data.index import INT16_SCALE
from mer.errors import CorpusError
from mer_runtime.console import Command, progress
from mer_runtime.files import write_file
from mer_runtime.inputs.face import YuNetDetector
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.voice_activity import hears_voice
from mer_runtime.inputs.window_faces import EVERY, crop_faces
from mer_runtime.spec import Spec
from robustness import list_corruptions
from voiceless import list_sounds

DATA = Path(__file__).resolve().parents[1] / "docs" / "presence.json"
SEED = 1
#: Frames of a frozen video: 4 s.
FROZEN_FRAMES = 120


@click.command(cls=Command)
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
def main(corpus: Path, cache: Path) -> None:
    """Judge CORPUS's test clips and rewrite docs/presence.json.

    CACHE (see mer-prepare) says which clips test, and has their voices.
    """
    cv2.setNumThreads(1)
    opened = Cache.open(cache)
    rows = opened.select("test")
    paths = {one.id: one.path for one in find_recordings(corpus)}
    ids = [opened.rows[row].id for row in rows]
    missing = [one for one in ids if one not in paths]
    if missing:
        raise CorpusError(f"{corpus} lacks {len(missing)} clips of {cache}, such as {missing[0]}")
    data = {
        "corpus": opened.digest,
        "n": len(rows),
        "voices": judge_voices(opened, rows),
        "sounds": judge_sounds(opened, len(rows)),
        "faces": judge_faces([paths[one] for one in ids]),
    }
    write_file(DATA, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    write_all_tables()


def judge_voices(cache: Cache, rows: Sequence[int]) -> list[dict[str, Any]]:
    """How many voices are heard, as recorded and under each corruption of the voice."""
    rate = cache.spec.audio.sample_rate
    voices = [read_voice(cache, row) for row in rows]
    spoilt = [c for c in list_corruptions(read_talkers(cache, SEED)) if c.waveform]
    judged = [
        {"name": "none", "what": "as recorded", "heard": sum(hears_voice(v, rate) for v in voices)}
    ]
    heard = sum(hears_voice(change_gain(voice, -20), rate) for voice in voices)
    judged.append({"name": "gain -20 dB", "what": "-20 dB, then 16 bits", "heard": heard})
    for corruption in spoilt:
        heard = 0
        for row, voice in zip(rows, voices, strict=True):
            draw = seed(corruption.name, cache.rows[row].id)
            assert corruption.waveform is not None
            heard += hears_voice(corruption.waveform(voice, rate, draw), rate)
        judged.append({"name": corruption.name, "what": corruption.what, "heard": heard})
    return judged


def judge_sounds(cache: Cache, count: int) -> list[dict[str, Any]]:
    """How often each sound that is no voice is taken for one."""
    audio = cache.spec.audio
    judged = []
    for sound in list_sounds():
        drawn = (
            sound.draw(audio.samples, audio.sample_rate, seed(sound.name, str(i)))
            for i in range(count)
        )
        heard = sum(hears_voice(waveform, audio.sample_rate) for waveform in drawn)
        judged.append(
            {"name": sound.name, "what": sound.what, "music": sound.music, "heard": heard}
        )
    return judged


def judge_faces(paths: Sequence[Path]) -> dict[str, int]:
    """In how many clips a face is there, as recorded and where the picture is frozen."""
    spec, detector = Spec(), YuNetDetector()
    counts = {"recorded": 0, "frozen": 0, "frozen, H.264": 0}
    with TemporaryDirectory() as folder, progress(paths, label="Faces") as bar:
        for path in bar:
            frames = read_window(path, spec).frames
            if frames is None:
                continue
            middle = frames[len(frames) // 2]
            coded = Path(folder) / "frozen.mp4"
            encode_frozen(middle, coded)
            shown = {
                "recorded": frames,
                "frozen": np.broadcast_to(middle, frames.shape),
                "frozen, H.264": read_window(coded, spec).frames,
            }
            for name, pictures in shown.items():
                assert pictures is not None
                faces = crop_faces(pictures, spec.video, detector, every=EVERY)
                counts[name] += faces is not None
    return counts


def encode_frozen(picture: NDArray[np.uint8], path: Path) -> None:
    """A video of one picture (H, W, 3) RGB, with x264's defaults."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        for number in range(FROZEN_FRAMES):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_voice(cache: Cache, row: int) -> Waveform:
    """(samples,) float32 at the level of the recording."""
    stored, level = cache.waveform(row), cache.level(row)
    return stored.astype(np.float32) * np.float32(level / INT16_SCALE)


def seed(*names: str) -> np.random.Generator:
    """A generator of a row's and a clip's own."""
    return np.random.default_rng((SEED, *(zlib.crc32(name.encode()) for name in names)))


if __name__ == "__main__":
    main()
