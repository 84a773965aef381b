"""Specs survive JSON exactly and refuse what can't be honoured."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mer_runtime.errors import MerError, SpecError
from mer_runtime.spec import RAVDESS_LABELS, AudioSpec, Spec, VideoSpec

CUSTOM = Spec(
    audio=AudioSpec(
        sample_rate=22_050,
        n_mfcc=13,
        amplitude="none",
        mean=tuple(0.1 * i for i in range(13)),
        std=tuple(1 / 3 + i for i in range(13)),
    ),
    video=VideoSpec(colour="bgr", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    labels=("calm", "ärgerlich", "嬉しい"),
    fusion="lt",
    num_heads=4,
    encoder="another",
)


@pytest.mark.parametrize("spec", [Spec(), CUSTOM], ids=["default", "custom"])
def test_round_trip_through_json(spec: Spec) -> None:
    again = Spec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)  # tuples again, not lists


def test_to_dict_is_plain_json() -> None:
    data = CUSTOM.to_dict()
    assert data == json.loads(json.dumps(data))
    assert set(data) == {field.name for field in dataclasses.fields(Spec)}


def test_missing_fields_take_defaults() -> None:
    assert Spec.from_dict({}) == Spec()
    assert Spec.from_dict({"audio": {"n_mfcc": 40}}).audio.shape == (40, 113)


@pytest.mark.parametrize(
    ("sample_rate", "shape"),
    [(16_000, (10, 113)), (22_050, (10, 156)), (8000, (10, 57)), (48_000, (10, 338))],
)
def test_audio_shape(sample_rate: int, shape: tuple[int, int]) -> None:
    assert AudioSpec(sample_rate=sample_rate).shape == shape


def test_derived_values() -> None:
    spec = Spec()
    assert spec.audio.samples == 57_600
    assert spec.video.shape == (15, 224, 224, 3)
    assert spec.video.slot == pytest.approx(0.24)


def test_labels_are_in_ravdess_order() -> None:
    assert Spec().labels == RAVDESS_LABELS
    assert " ".join(RAVDESS_LABELS) == "neutral calm happy sad angry fearful disgust surprised"


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec().fusion = "it"  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"flavour": 1}, "flavour"),
        ({"audio": {"rate": 16_000}}, r"audio\.rate"),
        ({"video": {"audio": {}}}, r"video\.audio"),
    ],
)
def test_unknown_field_is_named(data: dict[str, Any], name: str) -> None:
    with pytest.raises(SpecError, match=f"unknown field {name}"):
        Spec.from_dict(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"audio": {"sample_rate": 100}}, r"audio\.sample_rate"),
        ({"audio": {"sample_rate": "fast"}}, r"audio"),
        ({"audio": {"window": 0}, "video": {"window": 0}}, r"audio\.window"),
        ({"audio": {"window": 2.0}}, r"audio\.window"),
        ({"audio": {"window": float("nan")}, "video": {"window": float("nan")}}, "window"),
        ({"audio": {"n_mfcc": 0}}, r"audio\.n_mfcc"),
        ({"audio": {"n_mfcc": 129}}, r"audio\.n_mfcc"),
        ({"audio": {"n_fft": 1023}}, r"audio\.n_fft"),
        ({"audio": {"hop_length": 0}}, r"audio\.hop_length"),
        ({"audio": {"top_db": -1}}, r"audio\.top_db"),
        ({"audio": {"amplitude": "rms"}}, r"audio\.amplitude"),
        ({"audio": {"mean": [1.0, 2.0]}}, r"audio\.mean"),
        ({"audio": {"std": [0.0] * 10}}, r"audio\.std"),
        ({"audio": {"std": [1.0] * 9}}, r"audio\.std"),
        ({"audio": {"mean": 3}}, "audio"),
        ({"video": {"frames": 0}}, r"video\.frames"),
        ({"video": {"size": 100}}, r"video\.size"),
        ({"video": {"colour": "yuv"}}, r"video\.colour"),
        ({"video": {"scale": 0}}, r"video\.scale"),
        ({"video": {"mean": [0.5]}}, r"video\.mean"),
        ({"video": {"std": [1, 1, 0]}}, r"video\.std"),
        ({"video": {"std": []}}, r"video\.std"),
        ({"video": {"detector": "mtcnn"}}, r"video\.detector"),
        ({"video": {"margin": -0.1}}, r"video\.margin"),
        ({"fusion": ""}, "fusion"),
        ({"fusion": 3}, "fusion"),
        ({"encoder": ""}, "encoder"),
        ({"num_heads": 3}, "num_heads"),
        ({"labels": ["one"]}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a", ""]}, "labels"),
        ({"labels": ["a", 2]}, "labels"),
        ({"labels": 8}, "labels|malformed"),
        ({"audio": None}, "audio"),
        ({"video": [1, 2]}, "video"),
    ],
)
def test_bad_value_is_named(data: dict[str, Any], name: str) -> None:
    with pytest.raises(SpecError, match=name) as error:
        Spec.from_dict(data)
    assert isinstance(error.value, MerError)
    assert isinstance(error.value, ValueError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [None, [], "spec", 3])
def test_not_an_object(data: Any) -> None:
    with pytest.raises(SpecError, match="not an object"):
        Spec.from_dict(data)


class TestNumbers:
    """Whole numbers that are whole, and all within what a device can hold."""

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("audio.n_fft", 1 << 20),
            ("audio.n_fft", 1 << 26),
            ("audio.n_fft", 2048.0),
            ("audio.n_fft", 2049),
            ("audio.n_fft", "2048"),
            ("audio.n_mels", 10**6),
            ("audio.n_mels", None),
            ("audio.n_mfcc", 10.0),
            ("audio.n_mfcc", True),
            ("audio.n_mfcc", [10]),
            ("audio.sample_rate", 16000.5),
            ("audio.sample_rate", 10**400),
            ("audio.hop_length", 1),
            ("audio.hop_length", 0),
            ("audio.top_db", float("nan")),
            ("audio.top_db", float("inf")),
            ("audio.top_db", "80"),
            ("audio.mean", [float("nan")] * 10),
            ("audio.mean", "1234567890"),
            ("audio.mean", {"a": 1}),
            ("audio.std", [1e-300] * 10),
            ("video.frames", 15.0),
            ("video.frames", 10**9),
            ("video.size", 224.0),
            ("video.size", 1 << 20),
            ("video.size", 4096),
            ("video.size", -32),
            ("video.scale", float("nan")),
            ("video.scale", 0),
            ("video.std", [1, 1, float("inf")]),
            ("video.mean", [0, 0, "0"]),
            ("video.margin", float("nan")),
            ("num_heads", 1.0),
            ("num_heads", 3),
            ("num_heads", [1]),
            ("labels", "angry"),
            ("labels", ["a", 1]),
            ("labels", ["a", ["b"]]),
            ("labels", [str(i) for i in range(2000)]),
            ("labels", ["a", "b" * 1000]),
            ("fusion", "a" * 1000),
            ("encoder", 1),
        ],
    )
    def test_refused(self, place: str, value: Any) -> None:
        data = Spec().to_dict()
        *path, name = place.split(".")
        (data[path[0]] if path else data)[name] = value
        with pytest.raises(SpecError, match=place) as caught:
            Spec.from_dict(data)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("window", [0, 1e-300, 61, float("nan"), "3.6", True, None])
    def test_window(self, window: Any) -> None:
        data = Spec().to_dict()
        data["audio"]["window"] = data["video"]["window"] = window
        with pytest.raises(SpecError, match="window"):
            Spec.from_dict(data)

    def test_taken(self) -> None:
        """Long windows, fine steps, other sizes: what people have used."""
        AudioSpec(window=60.0, sample_rate=16_000, n_fft=512, hop_length=160, n_mels=40)
        AudioSpec(sample_rate=192_000, n_fft=8192, hop_length=2048)
        AudioSpec(n_mfcc=40, n_mels=512, n_fft=4096, hop_length=64)
        VideoSpec(frames=256, size=224)
        VideoSpec(frames=1, size=4096)
        VideoSpec(scale=1, mean=(127, 127, 127), std=(128, 128, 128))
