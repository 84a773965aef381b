"""One recording decoded and cropped: as a cache's record, or as a model's inputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer.data.cache import INT16_SCALE, CacheRow, clip_dtype
from mer.data.corpus import Recording
from mer_runtime.errors import MissingModalityError
from mer_runtime.files import replacing
from mer_runtime.inputs.clip import describe_lack, describe_voice, discount
from mer_runtime.inputs.face import FaceDetector
from mer_runtime.inputs.media import ClipWindow, read_window
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


def prepare_inputs(
    window: ClipWindow, spec: Spec, detector: FaceDetector, *, every: int = EVERY
) -> ClipInputs:
    """A window's crops and MFCCs, as ``mer_runtime.Recognizer`` makes them.

    Whether face and voice are there is decided by ``crop_faces`` and ``hears_voice``.

    Args:
        every: see ``mer_runtime.inputs.window_faces.crop_faces``.
    """
    faces = _find_faces(window, spec, detector, every)
    return ClipInputs(describe_voice(window.waveform, spec.audio), faces)


def _find_faces(
    window: ClipWindow, spec: Spec, detector: FaceDetector, every: int
) -> FaceCrops | None:
    if window.frames is None:
        return None
    return discount(crop_faces(window.frames, spec.video, detector, every=every), window)


def read_recording(recording: Recording, spec: Spec) -> ClipWindow:
    """The centre window of a recording, its voice perhaps from an audio-only file.

    Raises:
        MediaError: a file can't be decoded.
    """
    window = read_window(recording.path, spec)
    if window.waveform is None and recording.audio_path is not None:
        # RAVDESS cut both from one take: the middle of one file is the middle of the other.
        waveform = read_window(recording.audio_path, spec).waveform
        window = dataclasses.replace(window, waveform=waveform)
    return window


def write_clip(path: Path, record: NDArray[np.void]) -> None:
    """Write a clip's record.

    Raises:
        OutputError: it can't be written.
    """
    with replacing(path) as part:
        np.save(part, record)


def prepare_clip(recording: Recording, spec: Spec, detector: FaceDetector) -> NDArray[np.void]:
    """One recording as a cache's record, shape (1,) of ``clip_dtype(spec)``.

    Faces are detected in every frame: it is done once, and what a device follows comes near it.

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
    return record


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
    )
