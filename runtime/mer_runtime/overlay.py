"""Pictures and videos of an answer: face box, label, probability bars (paper, figures 4 and 5)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import OutputError
from mer_runtime.face import Box
from mer_runtime.recognizer import Analysis, Prediction
from mer_runtime.spec import Spec

PICTURE_SUFFIX = ".png"
VIDEO_SUFFIX = ".mp4"

#: Pixels: a picture lower than this is enlarged, so that the text stays legible.
MIN_HEIGHT = 360
PANEL_WIDTH = 280
BACKGROUND = (24, 24, 28)  # RGB, as all colours here
TEXT = (235, 235, 235)
BAR = (110, 118, 130)
ACCENT = (255, 176, 59)
FONT = cv2.FONT_HERSHEY_SIMPLEX

Picture = NDArray[np.uint8]


def write_overlay(path: str | Path, analysis: Analysis, spec: Spec) -> None:
    """Draw an answer into ``path``: a PNG of the window's middle frame, or an MP4 of the window.

    The MP4 shows the frames that the model saw, at their pace, with the window's sound. A clip
    without a picture shows its waveform.

    Raises:
        OutputError: the suffix is neither .png nor .mp4, or the file can't be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (PICTURE_SUFFIX, VIDEO_SUFFIX):
        raise OutputError(path, "an overlay is a .png or an .mp4")
    part = path.with_name(f".{path.stem}.part{path.suffix.lower()}")
    try:
        if path.suffix.lower() == PICTURE_SUFFIX:
            _write_picture(part, draw(analysis, spec, spec.video.frames // 2))
        else:
            _write_video(part, analysis, spec)
        part.replace(path)
    except (OSError, av.FFmpegError) as error:
        part.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(path, reason) from error


def draw(analysis: Analysis, spec: Spec, frame: int) -> Picture:
    """One frame of the window with box, label and bars: (H, W, 3) uint8 RGB."""
    window, faces = analysis.window, analysis.faces
    if window.frames is None:
        picture = _draw_waveform(window.waveform)
    else:
        picture, scale = _enlarge(window.frames[frame])
        if faces is not None:
            detected = bool(faces.found[frame])
            _draw_box(picture, faces.boxes[frame], scale, analysis.prediction, detected)
    panel = _draw_panel(analysis.prediction, picture.shape[0])
    return np.hstack([picture, panel])


def _enlarge(frame: Picture) -> tuple[Picture, float]:
    scale = max(1.0, MIN_HEIGHT / frame.shape[0])
    if scale == 1.0:
        return frame.copy(), scale
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8), scale


def _draw_box(
    picture: Picture, box: Box, scale: float, prediction: Prediction, detected: bool
) -> None:
    left, top = round(box.x * scale), round(box.y * scale)
    right, bottom = round((box.x + box.width) * scale), round((box.y + box.height) * scale)
    # A box taken from a neighbouring frame is drawn thin.
    cv2.rectangle(picture, (left, top), (right, bottom), ACCENT, 2 if detected else 1)
    text = f"{prediction.label} {prediction.probabilities[prediction.label]:.0%}"
    (width, height), _ = cv2.getTextSize(text, FONT, 0.6, 1)
    base = top - 6 if top - height - 12 > 0 else bottom + height + 8
    left = max(min(left, picture.shape[1] - width - 8), 0)
    cv2.rectangle(picture, (left, base - height - 6), (left + width + 8, base + 5), ACCENT, -1)
    _write(picture, text, (left + 4, base), 0.6, BACKGROUND)


def _draw_panel(prediction: Prediction, height: int) -> Picture:
    panel = np.full((height, PANEL_WIDTH, 3), BACKGROUND, np.uint8)
    _write(panel, prediction.label, (16, 36), 0.9, ACCENT, thickness=2)
    rows = len(prediction.probabilities)
    pitch = max((height - 110) // rows, 12)
    for i, (label, probability) in enumerate(prediction.probabilities.items()):
        y = 66 + i * pitch
        colour = ACCENT if label == prediction.label else BAR
        _write(panel, label, (16, y + 10), 0.42, TEXT)
        left, room = 104, PANEL_WIDTH - 104 - 58
        cv2.rectangle(panel, (left, y), (left + round(room * probability), y + 10), colour, -1)
        _write(panel, f"{probability:6.1%}", (PANEL_WIDTH - 56, y + 10), 0.42, TEXT)
    seen = [
        name for name, there in (("face", prediction.face), ("voice", prediction.voice)) if there
    ]
    note = f"from {' and '.join(seen)}"
    if prediction.face:
        note += f", {prediction.faces_found} crops"
    _write(panel, note, (16, height - 14), 0.42, TEXT)
    return panel


def _draw_waveform(waveform: NDArray[np.float32] | None) -> Picture:
    """A voice-only clip's picture: peak level against time."""
    height, width = MIN_HEIGHT, 480
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    if waveform is None or not waveform.any():
        return picture
    peaks = [np.abs(piece).max() for piece in np.array_split(waveform, width // 3)]
    for i, peak in enumerate(np.array(peaks) / max(peaks)):
        reach = round(float(peak) * height * 0.42)
        x = 3 * i
        cv2.line(picture, (x, height // 2 - reach), (x, height // 2 + reach), BAR, 2)
    return picture


def _write(
    picture: Picture,
    text: str,
    at: tuple[int, int],
    size: float,
    colour: tuple[int, int, int],
    thickness: int = 1,
) -> None:
    cv2.putText(picture, text, at, FONT, size, colour, thickness, cv2.LINE_AA)


def _write_picture(path: Path, picture: Picture) -> None:
    done, data = cv2.imencode(PICTURE_SUFFIX, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError("the picture can't be encoded")
    path.write_bytes(data.tobytes())


def _write_video(path: Path, analysis: Analysis, spec: Spec) -> None:
    pictures = [draw(analysis, spec, i) for i in range(spec.video.frames)]
    height, width = (side - side % 2 for side in pictures[0].shape[:2])
    rate = Fraction(spec.video.frames / spec.video.window).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4") as container:
        video: Any = container.add_stream(_video_codec(), rate=rate)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.bit_rate = 2_000_000
        sound = analysis.window.waveform
        audio: Any = None
        if sound is not None:
            audio = container.add_stream("aac", rate=spec.audio.sample_rate, layout="mono")
        for picture in pictures:
            even = np.ascontiguousarray(picture[:height, :width])
            container.mux(video.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate = spec.audio.sample_rate
            frame.pts = 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def _video_codec() -> str:
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
