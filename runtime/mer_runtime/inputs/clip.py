"""From a clip, however it is given, to what a model takes: face crops, and a voice as MFCCs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MediaError, MissingModalityError, lacks_memory
from mer_runtime.inputs.face_search import FaceSearch
from mer_runtime.inputs.given import Arrays, decode_still, read_arrays
from mer_runtime.inputs.media import ClipWindow, read_window
from mer_runtime.inputs.media_file import Media, MediaFile
from mer_runtime.inputs.mfcc import compute_mfcc
from mer_runtime.inputs.motion import moves_on, sketch
from mer_runtime.inputs.voice_activity import hears_voice
from mer_runtime.inputs.window_faces import FaceCrops
from mer_runtime.spec import AudioSpec, Spec


@dataclass(frozen=True)
class ClipReading:
    """A clip's centre window and the inputs made of it; None where a modality is missing.

    Attributes:
        source: the path, or such as "<frames>".
        mfcc: (n_mfcc, T) float32, raw.
        faces: crops in the spec's colour order.
        seconds: by stage: decode, mfcc, face. Faces are looked for while the clip is decoded;
            ``face`` is what it takes from then on.
    """

    source: str
    window: ClipWindow
    mfcc: NDArray[np.float32] | None
    faces: FaceCrops | None
    seconds: dict[str, float]


def read_clip(
    clip: Media | MediaFile | Arrays,
    spec: Spec,
    search: FaceSearch,
    audio_track: int | None = None,
) -> ClipReading:
    """Decode a clip's centre window and prepare both modalities.

    Args:
        clip: a path, a file's content or a file object, of a clip or of a still picture (JPEG or
            PNG), or arrays.

    Raises:
        MediaError: the clip can't be decoded, or there isn't memory enough for it.
        MissingModalityError: it shows no face that moves on and holds no voice.
        SpecError: an array isn't as ``Arrays`` has it.
    """
    seconds: dict[str, float] = {}
    faces = None
    source = clip if isinstance(clip, Arrays | MediaFile) else MediaFile(clip)
    try:
        with search:
            with timed(seconds, "decode"):
                window = _read(source, spec, search, audio_track)
            with timed(seconds, "mfcc"):
                mfcc = describe_voice(window.waveform, spec.audio)
            with timed(seconds, "face"):
                if window.frames is not None:
                    faces = _find_face(window.frames, window, spec, search)
    except Exception as error:
        if not lacks_memory(error):
            raise
        reason = "there isn't memory enough to look for faces and a voice in it"
        raise MediaError(source.name, reason) from error
    if faces is None and mfcc is None:
        raise MissingModalityError(f"{source.name}: {describe_lack(window)}")
    return ClipReading(source.name, window, mfcc, faces, seconds)


def _read(
    source: MediaFile | Arrays, spec: Spec, search: FaceSearch, audio_track: int | None
) -> ClipWindow:
    if isinstance(source, Arrays):
        return read_arrays(source, spec, search.watch)
    try:
        return read_window(source, spec, search.watch, audio_track=audio_track)
    except MediaError:
        picture = decode_still(source)
        if picture is None:
            raise
        return read_arrays(Arrays(picture), spec)


def _find_face(
    frames: NDArray[np.uint8], window: ClipWindow, spec: Spec, search: FaceSearch
) -> FaceCrops | None:
    if not window.still:
        return discount(search.crop(frames, spec.video), window)
    faces = search.crop(frames[:1], spec.video)
    return None if faces is None else faces.repeat(len(frames))


def discount(faces: FaceCrops | None, window: ClipWindow) -> FaceCrops | None:
    """Crops whose face doesn't count as found where no frame was on screen."""
    if faces is None or window.shown is None:
        return faces
    return dataclasses.replace(faces, found=faces.found & window.shown)


def describe_lack(window: ClipWindow) -> str:
    """Why a window has neither a face nor a voice, for an error."""
    frames, waveform = window.frames, window.waveform
    if window.still and waveform is None:
        return "no face was found"
    frozen = (
        not window.still
        and frames is not None
        and not moves_on([sketch(frame) for frame in frames])
    )
    picture = "the picture is frozen" if frozen else "no face was found"
    silent = waveform is None or not waveform.any()
    notes = f" ({'; '.join(window.notes)})" if window.notes else ""
    return f"{picture} and {'there is no sound' if silent else 'no voice is heard'}{notes}"


def describe_voice(
    waveform: NDArray[np.float32] | None, spec: AudioSpec
) -> NDArray[np.float32] | None:
    """MFCCs (n_mfcc, T) of a waveform; None where no voice is heard, as of a missing track."""
    if waveform is None or not hears_voice(waveform, spec.sample_rate):
        return None
    return compute_mfcc(waveform, spec)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Put the seconds that the block takes under ``stage``."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
