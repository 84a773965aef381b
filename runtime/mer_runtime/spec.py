"""What a model expects of its inputs, as data that travels in checkpoints and manifests."""

from __future__ import annotations

import dataclasses
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

#: Seconds of one window: what the model sees of a clip (reference implementation, 3.6 s).
WINDOW_SECONDS = 3.6


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
        _require(8_000 <= self.sample_rate <= 192_000, "audio.sample_rate", "8000 to 192000 Hz")
        _require(0 < self.window <= 60, "audio.window", "above 0, at most 60 seconds")
        _require(1 <= self.n_mfcc <= self.n_mels, "audio.n_mfcc", "1 to n_mels")
        _require(self.n_fft >= 64 and self.n_fft % 2 == 0, "audio.n_fft", "even and at least 64")
        _require(0 < self.hop_length <= self.n_fft, "audio.hop_length", "1 to n_fft")
        _require(self.top_db > 0, "audio.top_db", "above 0")
        _require(self.amplitude in get_args(Amplitude), "audio.amplitude", "'peak' or 'none'")
        _require(len(self.mean) in (0, self.n_mfcc), "audio.mean", "empty or n_mfcc values")
        _require(len(self.std) in (0, self.n_mfcc), "audio.std", "empty or n_mfcc values")
        _require(all(s > 0 for s in self.std), "audio.std", "above 0")

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
        _require(1 <= self.frames <= 256, "video.frames", "1 to 256")
        _require(0 < self.window <= 60, "video.window", "above 0, at most 60 seconds")
        _require(self.size > 0 and self.size % 16 == 0, "video.size", "a multiple of 16")
        _require(self.colour in get_args(Colour), "video.colour", "'rgb' or 'bgr'")
        _require(self.scale > 0, "video.scale", "above 0")
        _require(len(self.mean) == 3, "video.mean", "three values")
        _require(len(self.std) == 3 and min(self.std) > 0, "video.std", "three values above 0")
        _require(self.detector in get_args(Detector), "video.detector", "'yunet' or 'haar'")
        _require(0 <= self.margin <= 2, "video.margin", "0 to 2")

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
            _require(isinstance(value, str) and value != "", name, "a name")
        _require(self.num_heads in (1, 2, 4, 8, 16, 32, 64), "num_heads", "a power of two to 64")
        _require(len(self.labels) >= 2, "labels", "at least two names")
        _require(
            all(isinstance(label, str) and label for label in self.labels)
            and len(set(self.labels)) == len(self.labels),
            "labels",
            "distinct, non-empty names",
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
