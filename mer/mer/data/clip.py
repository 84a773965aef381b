"""One recording decoded and cropped: as a cache's record, or as a model's inputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer.data.index import INT16_SCALE, CacheRow, clip_dtype
from mer.data.recording import Recording
from mer_runtime.errors import MissingModalityError
from mer_runtime.files import replacing
from mer_runtime.inputs.clip import describe_lack, describe_voice, discount
from mer_runtime.inputs.face import FaceDetector
from mer_runtime.inputs.media import WHOLE, ClipWindow, read_window
from mer_runtime.inputs.voice_activity import hears_voice
from mer_runtime.inputs.window_faces import EVERY, FaceCrops, crop_faces
from mer_runtime.spec import Spec


@dataclass(frozen=True)
class ClipInputs:
    """What a device would feed its model; None where a modality is missing.

    ``mfcc`` is (n_mfcc, T) float32, raw; ``faces`` has crops in the spec's colour order.
    """

    mfcc: NDArray[np.float32] | None
    faces: FaceCrops | None


def prepare_inputs(window: ClipWindow, spec: Spec, detector: FaceDetector) -> ClipInputs:
    """A window's crops and MFCCs, as ``mer_runtime.Recognizer`` makes them.

    Whether face and voice are there is decided by ``crop_faces`` and ``hears_voice``.
    """
    faces = _find_faces(window, spec, detector, EVERY)
    return ClipInputs(describe_voice(window.waveform, spec.audio), faces)


def _find_faces(
    window: ClipWindow, spec: Spec, detector: FaceDetector, every: int
) -> FaceCrops | None:
    if window.frames is None:
        return None
    return discount(crop_faces(window.frames, spec.video, detector, every=every), window)


def read_recording(recording: Recording, spec: Spec) -> ClipWindow:
    """The centre window of a recording, its voice perhaps from a file of its own.

    Raises:
        MediaError: a file can't be decoded.
    """
    window = _read_part(recording.path, recording, spec)
    if recording.audio_path is None or (recording.own_sound and window.waveform is not None):
        return window
    # Both were cut from one take: the middle of one file is the middle of the other.
    sound = _read_part(recording.audio_path, recording, spec)
    notes = [*window.notes, *(f"{recording.audio_path.name}: {note}" for note in sound.notes)]
    return dataclasses.replace(window, waveform=sound.waveform, notes=tuple(notes))


def _read_part(path: Path, recording: Recording, spec: Spec) -> ClipWindow:
    """The centre window of a recording's part of a file, as if the file were cut there."""
    start, end = recording.start, recording.end
    if (start, end) == WHOLE:
        return read_window(path, spec)
    window = read_window(path, spec, part=(start, end))
    length = min(end, window.duration) - start
    lead = (spec.video.window - length) / 2  # seconds of the window before the part, and behind
    if lead <= 0:
        return window
    waveform, frames, shown = window.waveform, window.frames, window.shown
    if waveform is not None:
        waveform = waveform.copy()
        beside = round(lead * spec.audio.sample_rate)
        waveform[:beside], waveform[len(waveform) - beside :] = 0, 0
    if frames is not None:
        times = (np.arange(len(frames)) + 0.5) * spec.video.slot
        inside = np.flatnonzero((times >= lead) & (times < lead + length))
        first, last = (inside[0], inside[-1]) if len(inside) else (len(frames) // 2,) * 2
        held = np.clip(np.arange(len(frames)), first, last)
        frames, shown = frames[held], None if shown is None else shown[held]
    return dataclasses.replace(window, waveform=waveform, frames=frames, shown=shown)


def write_clip(path: Path, record: NDArray[np.void]) -> None:
    """Write a clip's record.

    Raises:
        OutputError: it can't be written.
    """
    with replacing(path) as part:
        np.save(part, record)


def prepare_clip(
    recording: Recording, spec: Spec, detector: FaceDetector
) -> tuple[NDArray[np.void], tuple[str, ...]]:
    """One recording as a cache's record, shape (1,) of ``clip_dtype(spec)``, and its notes.

    Faces are detected in every frame: it is done once, and what a device follows comes near it.
    The notes are sentences on what is missing in its media, or was mended.

    Raises:
        MediaError: a file can't be decoded.
        MissingModalityError: it has neither a face nor a voice.
    """
    clip = read_recording(recording, spec)
    waveform = clip.waveform
    faces = _find_faces(clip, spec, detector, every=1)
    if waveform is not None and not hears_voice(waveform, spec.audio.sample_rate):
        waveform = None
    if faces is None and waveform is None:
        raise MissingModalityError(f"{recording.path}: {describe_lack(clip)}")
    record = np.zeros(1, clip_dtype(spec))
    if faces is not None:
        record["crops"][0] = faces.crops
        record["found"][0] = faces.found
    if waveform is not None:
        largest = INT16_SCALE - 1
        peak = float(np.abs(waveform).max()) or 1.0
        record["waveform"][0] = np.rint(waveform * (largest / peak))
        record["level"] = peak * INT16_SCALE / largest
    record["has_face"] = faces is not None
    record["has_voice"] = waveform is not None
    record["source_bytes"] = source_bytes(recording)
    return record, clip.notes


def source_bytes(recording: Recording) -> int:
    """Size of the files that a recording is made from."""
    paths = (recording.path, recording.audio_path)
    return sum(path.stat().st_size for path in paths if path is not None)


def describe_clip(recording: Recording, record: NDArray[np.void]) -> CacheRow:
    """A clip's row in the index, from its recording and its record (1,)."""
    return CacheRow(
        id=recording.id,
        emotion=recording.emotion,
        actor=recording.actor,
        intensity=recording.intensity,
        has_face=bool(record["has_face"][0]),
        has_voice=bool(record["has_voice"][0]),
        faces_found=int(record["found"][0].sum()),
        split=recording.split,
        fold=recording.fold,
    )
