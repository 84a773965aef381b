"""Pictures and videos of an answer: face box, label, probability bars (paper, figures 4 and 5).

A clip's answer is written as a whole; a stream's are drawn into its pictures one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import OutputError
from mer_runtime.files import replacing
from mer_runtime.inputs.face import Box
from mer_runtime.prediction import Analysis
from mer_runtime.spec import Spec
from mer_runtime.stream.event import StreamEvent

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
    with replacing(path) as part:
        try:
            if path.suffix.lower() == PICTURE_SUFFIX:
                _write_picture(part, draw(analysis, spec, spec.video.frames // 2))
            else:
                _write_video(part, analysis, spec)
        except av.FFmpegError as error:
            raise OutputError(path, error.strerror or str(error)) from error


def draw(analysis: Analysis, spec: Spec, frame: int) -> Picture:
    """One frame of the window with box, label and bars: (H, W, 3) uint8 RGB."""
    window, faces, prediction = analysis.window, analysis.faces, analysis.prediction
    if window.frames is None:
        picture = draw_waveform(window.waveform)
    else:
        picture, scale = _enlarge(window.frames[frame])
        if faces is not None:
            text = _caption(prediction.label, prediction.probabilities)
            _draw_box(picture, faces.boxes[frame], scale, text, bool(faces.found[frame]))
    note = _note(prediction.face, prediction.voice)
    if prediction.face:
        note += f", {prediction.faces_found} crops"
    panel = _draw_panel(prediction.label, prediction.probabilities, note, picture.shape[0])
    return np.hstack([picture, panel])


def draw_live(
    image: Picture, answers: Sequence[StreamEvent], size: tuple[int, int] | None = None
) -> Picture:
    """A stream's frame with the box, number and label of each face: (H, W, 3) uint8 RGB.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        answers: the latest event of each tracked face.
        size: height and width to fit the frame into, with bars where its shape is another; by
            default its own, enlarged to ``MIN_HEIGHT`` at least.
    """
    if size is None:
        picture, scale = _enlarge(image)
        left = top = 0
    else:
        scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
        height, width = (max(round(side * scale), 1) for side in image.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        picture = np.full((*size, 3), BACKGROUND, np.uint8)
        inner = image if scale == 1 else cv2.resize(image, (width, height), interpolation=method)
        picture[top : top + height, left : left + width] = inner
    for answer in answers:
        if answer.box is not None and answer.label is not None:
            number = "" if answer.track is None else f"{answer.track}: "
            text = f"{number}{_caption(answer.label, answer.probabilities)}"
            box = answer.box
            shifted = Box(box.x + left / scale, box.y + top / scale, box.width, box.height)
            _draw_box(picture, shifted, scale, text, True)
    return picture


def draw_answer(answer: StreamEvent | None, height: int) -> Picture:
    """The panel of an event: label and bars, (height, PANEL_WIDTH, 3) uint8 RGB."""
    if answer is None or answer.label is None:
        note = "waiting" if answer is None else "neither face nor voice"
        return _draw_panel(None, {}, note, height)
    note = f"{_note(answer.face, answer.voice)}, {1000 * answer.age:.0f} ms"
    return _draw_panel(answer.label, answer.probabilities, note, height)


def draw_waveform(waveform: NDArray[np.float32] | None) -> Picture:
    """What stands for a picture where there is only a voice: peak level against time."""
    height, width = MIN_HEIGHT, 480
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    if waveform is None or not waveform.any():
        return picture
    peaks = np.array([np.abs(piece).max() for piece in np.array_split(waveform, width // 3)])
    for i, peak in enumerate(peaks / peaks.max()):
        reach = round(float(peak) * height * 0.42)
        x = 3 * i
        cv2.line(picture, (x, height // 2 - reach), (x, height // 2 + reach), BAR, 2)
    return picture


def _enlarge(frame: Picture) -> tuple[Picture, float]:
    scale = max(1.0, MIN_HEIGHT / frame.shape[0])
    if scale == 1.0:
        return frame.copy(), scale
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8), scale


def _draw_box(picture: Picture, box: Box, scale: float, text: str, detected: bool) -> None:
    left, top = round(box.x * scale), round(box.y * scale)
    right, bottom = round((box.x + box.width) * scale), round((box.y + box.height) * scale)
    # A box taken from a neighbouring frame is drawn thin.
    cv2.rectangle(picture, (left, top), (right, bottom), ACCENT, 2 if detected else 1)
    (width, height), _ = cv2.getTextSize(text, FONT, 0.6, 1)
    base = top - 6 if top - height - 12 > 0 else bottom + height + 8
    left = max(min(left, picture.shape[1] - width - 8), 0)
    cv2.rectangle(picture, (left, base - height - 6), (left + width + 8, base + 5), ACCENT, -1)
    _write(picture, text, (left + 4, base), 0.6, BACKGROUND)


def _draw_panel(
    best: str | None, probabilities: Mapping[str, float], note: str, height: int
) -> Picture:
    panel = np.full((height, PANEL_WIDTH, 3), BACKGROUND, np.uint8)
    _write(panel, best or "-", (16, 36), 0.9, ACCENT, thickness=2)
    pitch = max((height - 110) // max(len(probabilities), 1), 12)
    for i, (label, probability) in enumerate(probabilities.items()):
        y = 66 + i * pitch
        colour = ACCENT if label == best else BAR
        _write(panel, label, (16, y + 10), 0.42, TEXT)
        left, room = 104, PANEL_WIDTH - 104 - 58
        cv2.rectangle(panel, (left, y), (left + round(room * probability), y + 10), colour, -1)
        _write(panel, f"{probability:6.1%}", (PANEL_WIDTH - 56, y + 10), 0.42, TEXT)
    _write(panel, note, (16, height - 14), 0.42, TEXT)
    return panel


def _caption(label: str, probabilities: Mapping[str, float]) -> str:
    return f"{label} {probabilities[label]:.0%}"


def _note(face: bool, voice: bool) -> str:
    seen = [name for name, there in (("face", face), ("voice", voice)) if there]
    return f"from {' and '.join(seen)}"


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
        video: Any = container.add_stream(video_codec(), rate=rate)
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
            sound = np.clip(sound, -1, 1)  # an encoder's own limit
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate = spec.audio.sample_rate
            frame.pts = 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def video_codec() -> str:
    """The H.264 encoder, or MPEG-4's in builds of FFmpeg without it."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
