"""Pictures and sound that a program gives as arrays, as the window that a file would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import av
import numpy as np
from numpy.typing import NDArray

from mer_runtime.errors import MediaError, SpecError
from mer_runtime.inputs.media import ClipWindow
from mer_runtime.inputs.media_file import MediaFile
from mer_runtime.inputs.notes import describe_picture, describe_rest, describe_sound
from mer_runtime.inputs.picks import FramePicks, Watcher
from mer_runtime.inputs.picture import FrameDrawer, check_frame
from mer_runtime.inputs.sound import ChannelOrder, check_sound
from mer_runtime.inputs.still import decode_picture
from mer_runtime.inputs.waveform import MARGIN, WaveformBuffer
from mer_runtime.spec import Spec

Colour = Literal["rgb", "bgr"]
Picture = NDArray[np.uint8]
#: What covers all of a long sequence.
STREAM = "mer_runtime.stream.StreamRecognizer"
#: Seconds from a clock's zero, either way: 317 years. Beyond, a slot is lost in rounding.
LATEST = 1e10


@dataclass(frozen=True)
class Arrays:
    """Pictures and sound in memory.

    Attributes:
        frames: one picture (H, W, 3) uint8, or several of them, also as (n, H, W, 3). Here and as
            ``waveform``, all that NumPy makes an array of will do.
        times: (n,) seconds at which each comes on screen, the waveform beginning at 0.
        waveform: (n,), (n, channels) or (channels, n), floats in [-1, 1] or integers of full scale.
        sample_rate: Hz.
        colour: the frames' order of colours: ``rgb``, or ``bgr`` as OpenCV's.
    """

    frames: object = None
    times: Sequence[float] | NDArray[Any] | None = None
    waveform: NDArray[Any] | None = None
    sample_rate: int | None = None
    colour: Colour = "rgb"

    @property
    def name(self) -> str:
        """What they are, for people."""
        return "<waveform>" if self.frames is None else "<frames>"


def decode_still(file: MediaFile) -> Picture | None:
    """The picture that a file holds, (H, W, 3) uint8 RGB; None where it is no JPEG or PNG.

    Raises:
        MediaError: it is too large.
    """
    try:
        return decode_picture(file.read())
    except ValueError as error:
        raise MediaError(file.name, str(error)) from error


def read_arrays(arrays: Arrays, spec: Spec, watch: Watcher | None = None) -> ClipWindow:
    """The centre window of what a program gives, by the rules of ``media.read_window``.

    Without times, frames are spread evenly over the waveform's length, or over one window
    where there is no waveform. The last frame is on screen for as long as the others are in
    the median. One picture alone stands for the whole window.

    Raises:
        SpecError: an array isn't as ``Arrays`` has it.
    """
    frames = _list_frames(arrays)
    sound = _order_sound(arrays)
    if not frames and sound is None:
        raise SpecError("give a clip, frames or a waveform")
    window = spec.video.window
    rate = int(arrays.sample_rate or 1)
    length = 0.0 if sound is None else sound.shape[1] / rate
    if len(frames) == 1:
        times, span = [0.0], (0.0, length)
    else:
        times, span = _place(arrays.times, len(frames), length or window, spec.video.slot)
        if sound is not None:
            span = min(span[0], 0.0), max(span[1], length)
    start = (span[0] + span[1] - window) / 2
    end = start + window
    duration = span[1] - span[0]
    opens, closes = max(start - span[0], 0.0), min(end - span[0], duration)
    told = f"from {opens:.1f} to {closes:.1f} s, the window"
    notes: list[str] = []
    pictures: Picture | None = None
    shown: NDArray[np.bool_] | None = None
    buffer: WaveformBuffer | None = None
    if len(frames) == 1:
        picture = FrameDrawer().draw(_wrap(frames[0], arrays.colour))
        pictures = np.broadcast_to(picture, (spec.video.frames, *picture.shape))
        shown = np.ones(spec.video.frames, bool)
    elif frames:
        drawer = _ArrayDrawer(arrays.colour)
        picks = FramePicks(start, spec.video.slot, spec.video.frames, watch, drawer=drawer)
        for i, (frame, time) in enumerate(zip(frames, times, strict=True)):
            if picks.full:
                break
            picks.offer(_ArrayFrame(i, frame), time)
        pictures, shown = picks.finish(), picks.shown
        notes += describe_picture(picks, told)
    if sound is not None:
        buffer = WaveformBuffer(start, spec.audio.samples, spec.audio.sample_rate)
        first = max(int((start - 2 * MARGIN) * rate), 0)
        last = max(int((end + 2 * MARGIN) * rate), 0)
        buffer.add_samples(sound[:, first:last], rate, first / rate)
        notes += describe_sound({1: buffer}, 1, told)
    notes += describe_rest(opens, closes, duration, STREAM)
    return ClipWindow(
        pictures,
        None if buffer is None else buffer.waveform(),
        duration,
        None if pictures is None else shown,
        notes=tuple(notes),
        still=len(frames) == 1,
        start=opens,
        end=closes,
    )


def _list_frames(arrays: Arrays) -> list[Picture]:
    if arrays.colour not in get_args(Colour):
        raise SpecError(f"colour must be 'rgb' or 'bgr', not {arrays.colour!r}")
    given = _as_array(arrays.frames)
    if given is None:
        if arrays.times is not None:
            raise SpecError("times are of frames: give those, too")
        return []
    if isinstance(given, np.ndarray) and given.ndim != 4:
        given = [given]
    elif not isinstance(given, np.ndarray | list | tuple):
        raise SpecError(
            "a clip is a path, bytes, a file object, a picture (H, W, 3) or a list of pictures, "
            f"not {type(given).__name__}"
        )
    frames = [_as_array(frame) for frame in given]
    if not frames:
        raise SpecError("there are no frames in the list")
    for frame in frames:
        check_frame(frame)
    return frames


def _order_sound(arrays: Arrays) -> NDArray[Any] | None:
    """The waveform as (channels, n)."""
    if arrays.waveform is None:
        if arrays.sample_rate is not None:
            raise SpecError("sample_rate is of a waveform: give that, too")
        return None
    if arrays.sample_rate is None:
        raise SpecError("a waveform needs its sample_rate, in Hz")
    sound = _as_array(arrays.waveform)
    check_sound(sound, arrays.sample_rate)
    if not sound.size:
        raise SpecError("the waveform is empty")
    return ChannelOrder().arrange(sound)


def _as_array(given: Any) -> Any:
    """What knows how to become an array, as PyTorch's tensors and Pillow's pictures, as one."""
    if isinstance(given, np.ndarray) or not hasattr(given, "__array__"):
        return given
    try:
        return np.asarray(given)
    except Exception as error:  # such as a tensor on a GPU
        reason = " ".join(str(error).split())
        raise SpecError(f"{type(given).__name__} doesn't become an array: {reason}") from error


def _place(
    given: Sequence[float] | NDArray[Any] | None, count: int, length: float, slot: float
) -> tuple[list[float], tuple[float, float]]:
    """When each frame comes on screen, and when the first comes and the last goes."""
    if given is None:
        return [i * length / max(count, 1) for i in range(count)], (0.0, length)
    try:
        times = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise SpecError(f"times must be seconds, one for each frame ({error})") from error
    if times.shape != (count,):
        raise SpecError(f"times must be ({count},), one for each frame, not {times.shape}")
    if not (np.isfinite(times) & (np.abs(times) <= LATEST)).all():
        raise SpecError(f"times must be finite, within {LATEST:.0e} seconds of zero")
    steps = np.diff(times)
    if (steps < 0).any():
        raise SpecError("times must not go back: sort the frames by them")
    shown = float(np.median(steps)) or slot
    return times.tolist(), (float(times[0]), float(times[-1]) + shown)


class _ArrayFrame(NamedTuple):
    """A frame and its number, as ``FramePicks`` asks for them."""

    pts: int
    image: Picture


class _ArrayDrawer(FrameDrawer):
    """Frames that are arrays, bounded as decoded ones are."""

    def __init__(self, colour: Colour) -> None:
        super().__init__()
        self._colour: Colour = colour

    def size(self, frame: _ArrayFrame) -> tuple[int, int]:
        return super().size(_wrap(frame.image, self._colour))

    def draw(self, frame: _ArrayFrame, size: tuple[int, int] | None = None) -> Picture:
        return super().draw(_wrap(frame.image, self._colour), size)


def _wrap(image: Picture, colour: Colour) -> Any:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=f"{colour}24")
