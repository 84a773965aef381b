"""What a model expects of its inputs, as data that travels in checkpoints and manifests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mer_runtime.errors import SpecError

#: One of ``mer.models.FUSIONS``; a device doesn't care which.
Fusion = str
Amplitude = Literal["peak", "none"]
Colour = Literal["rgb", "bgr"]
Detector = Literal["yunet", "haar"]

#: RAVDESS's eight emotions, in the order of its file names' third field.
RAVDESS_LABELS: tuple[str, ...] = (
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgust",
    "surprised",
)

#: The face encoder where none is named: the paper's.
ENCODER = "efficientface"

#: Bounds of what a window's preprocessing takes: values in all overlapping frames of sound, and in
#: all crops. The paper's have 2^18 and 2^21.
MOST_FRAMED, MOST_PIXELS = 1 << 24, 1 << 26
MOST_LABELS, LONGEST_LABEL = 1024, 256
#: Bounds of means and scales.
LARGEST = 1e6

#: Seconds of one window: what the model sees of a clip (reference implementation, 3.6 s).
WINDOW_SECONDS = 3.6
SHORT_AND_LONG = (0.1, 60.0)


@dataclass(frozen=True)
class AudioSpec:
    """How a waveform becomes MFCCs.

    The parameters mean what they mean in ``librosa.feature.mfcc`` 0.11. ``mean`` and ``std``
    (one value a coefficient; empty means none) standardise the MFCCs *inside the graph*.
    """

    sample_rate: int = 16_000  # Hz
    window: float = WINDOW_SECONDS  # seconds
    n_mfcc: int = 10
    n_fft: int = 2048  # samples
    hop_length: int = 512  # samples
    n_mels: int = 128
    top_db: float = 80.0  # dB below the clip's maximum
    amplitude: Amplitude = "peak"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require_whole(self, "audio.", sample_rate=(8_000, 192_000), n_mels=(1, 512))
        _require_whole(self, "audio.", n_mfcc=(1, self.n_mels), n_fft=(64, 1 << 15))
        _require_whole(self, "audio.", hop_length=(1, self.n_fft))
        _require_real(self, "audio.", window=SHORT_AND_LONG, top_db=(1e-3, 1e3))
        _require(self.n_fft % 2 == 0, "audio.n_fft", "even")
        framed = self.shape[1] * self.n_fft
        _require(framed <= MOST_FRAMED, "audio.hop_length", "longer for this window and n_fft")
        _require(self.amplitude in get_args(Amplitude), "audio.amplitude", "'peak' or 'none'")
        for name, least in (("mean", -LARGEST), ("std", 1 / LARGEST)):
            _require_all(getattr(self, name), f"audio.{name}", (0, self.n_mfcc), least)

    @property
    def samples(self) -> int:
        """Samples in one window."""
        return round(self.window * self.sample_rate)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of one window's MFCCs: (n_mfcc, T), T being librosa's centred frame count."""
        return self.n_mfcc, 1 + self.samples // self.hop_length


@dataclass(frozen=True)
class VideoSpec:
    """How frames become face crops.

    ``scale``, ``mean`` and ``std`` (in the crop's channel order) turn uint8 crops into what the
    encoder sees, ``(crop * scale - mean) / std``, *inside the graph*. ``margin`` widens the face
    box: the crop's side is ``(1 + margin)`` times the box's longer side.
    """

    frames: int = 15
    window: float = WINDOW_SECONDS  # seconds
    size: int = 224  # pixels
    colour: Colour = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    detector: Detector = "yunet"
    margin: float = 0.0  # FER2013's photos are 1.02 times YuNet's box (median of 600)

    def __post_init__(self) -> None:
        _require_whole(self, "video.", frames=(1, 256), size=(16, 4096))
        _require_real(self, "video.", window=SHORT_AND_LONG, margin=(0, 2))
        _require_real(self, "video.", scale=(1 / LARGEST, LARGEST))
        _require(self.size % 16 == 0, "video.size", "a multiple of 16")
        pixels = math.prod(self.shape)
        _require(pixels <= MOST_PIXELS, "video.size", "smaller for so many frames")
        _require(self.colour in get_args(Colour), "video.colour", "'rgb' or 'bgr'")
        _require(self.detector in get_args(Detector), "video.detector", "'yunet' or 'haar'")
        for name, least in (("mean", -LARGEST), ("std", 1 / LARGEST)):
            _require_all(getattr(self, name), f"video.{name}", (3,), least)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of one window's crops: (frames, size, size, 3), uint8."""
        return self.frames, self.size, self.size, 3

    @property
    def slot(self) -> float:
        """Seconds from one used frame to the next."""
        return self.window / self.frames


@dataclass(frozen=True)
class Spec:
    """Everything a device must know about a model apart from its weights.

    A missing modality is raw zeros (black crops, zero MFCCs), before standardisation. ``fusion``
    and ``encoder`` are names of ``mer.models``.
    """

    audio: AudioSpec = field(default_factory=AudioSpec)
    video: VideoSpec = field(default_factory=VideoSpec)
    labels: tuple[str, ...] = RAVDESS_LABELS
    fusion: Fusion = "ia"
    num_heads: int = 1
    encoder: str = ENCODER

    def __post_init__(self) -> None:
        _require(self.audio.window == self.video.window, "audio.window", "equal to video.window")
        for name in ("fusion", "encoder"):
            value = getattr(self, name)
            fits = isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL
            _require(fits, name, f"a name of at most {LONGEST_LABEL} characters")
        _require_whole(self, "", num_heads=(1, 64))
        _require(self.num_heads.bit_count() == 1, "num_heads", "a power of two")
        labels = self.labels
        _require(
            isinstance(labels, tuple) and 2 <= len(labels) <= MOST_LABELS, "labels", "2 to 1024"
        )
        _require(
            all(isinstance(label, str) and 0 < len(label) <= LONGEST_LABEL for label in labels)
            and len(set(labels)) == len(labels),
            "labels",
            f"distinct names of 1 to {LONGEST_LABEL} characters",
        )

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON-ready data; ``Spec.from_dict`` reverses it exactly.

        The paper's encoder isn't named, as it wasn't before there were others.
        """
        data: dict[str, Any] = _listed(dataclasses.asdict(self))
        if self.encoder == ENCODER:
            del data["encoder"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spec:
        """Read what ``to_dict`` wrote.

        Raises:
            SpecError: a field is unknown, of the wrong type or out of range.
        """
        if not isinstance(data, Mapping):
            raise SpecError(f"the spec is a {type(data).__name__}, not an object")
        fields = dict(data)
        if "audio" in fields:
            fields["audio"] = _build(AudioSpec, fields["audio"], "audio.")
        if "video" in fields:
            fields["video"] = _build(VideoSpec, fields["video"], "video.")
        spec: Spec = _build(cls, fields, "")
        return spec


def _require(holds: bool, name: str, allowed: str) -> None:
    if not holds:
        raise SpecError(f"{name} must be {allowed}")


def _require_whole(spec: Any, prefix: str, **bounds: tuple[int, int]) -> None:
    """Whole numbers: no float that happens to be one, and no truth value."""
    for name, (least, most) in bounds.items():
        value = getattr(spec, name)
        fits = type(value) is int and least <= value <= most
        _require(fits, f"{prefix}{name}", f"a whole number from {least} to {most}")


def _require_real(spec: Any, prefix: str, **bounds: tuple[float, float]) -> None:
    for name, (least, most) in bounds.items():
        fits = _is_real(getattr(spec, name), least, most)
        _require(fits, f"{prefix}{name}", f"a number from {least:g} to {most:g}")


def _require_all(values: Any, name: str, counts: tuple[int, ...], least: float) -> None:
    """So many numbers from ``least`` to ``LARGEST``."""
    fits = (
        isinstance(values, tuple)
        and len(values) in counts
        and all(_is_real(value, least, LARGEST) for value in values)
    )
    _require(fits, name, f"{' or '.join(map(str, counts))} numbers, {least:g} to {LARGEST:g}")


def _is_real(value: Any, least: float, most: float) -> bool:
    """Whether it is a number of the range; NaN is in none."""
    # JSON's true is an int to Python.
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and least <= value <= most


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _build(cls: type[Any], data: Any, prefix: str) -> Any:
    if not isinstance(data, Mapping):
        raise SpecError(f"the spec's {prefix.rstrip('.') or 'top level'} is not an object")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in data:
        if name not in known:
            raise SpecError(f"the spec has an unknown field {prefix}{name}")
    values = {}
    for name, value in data.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"the spec's {prefix or ''}fields are malformed: {error}") from error
